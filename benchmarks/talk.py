"""Whether a model can be talked to: short questions that the original answers right, asked through its chat template.

    python benchmarks/talk.py out/quick out/calibrated --original demo/models/int8

Greedy answers of at most 40 tokens. An answer is right where it holds one of the words expected; of the questions below
the first 50 that the original answers right are asked. A loop is an answer in which eight words come three times.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

from tercet import Engine, Sampling, Tokenizer

ASKED, TOKENS, GRAM, TIMES = 50, 40, 8, 3
QUESTIONS = """
What is the capital of France?|paris
What is the capital of Italy?|rome
What is the capital of Japan?|tokyo
What is the capital of Germany?|berlin
What is the capital of Spain?|madrid
What is the capital of England?|london
What is the capital of Russia?|moscow
What is the capital of Egypt?|cairo
What is the capital of Greece?|athens
What is the capital of China?|beijing
What is the capital of Canada?|ottawa
What is the capital of Australia?|canberra
What is the capital of Portugal?|lisbon
What is the capital of Austria?|vienna
What is the capital of Ireland?|dublin
What is the capital of Norway?|oslo
What is the capital of Sweden?|stockholm
What is the capital of Poland?|warsaw
What is the capital of the United States?|washington
What is the capital of India?|delhi
What is the largest planet in the solar system?|jupiter
Which planet is closest to the sun?|mercury
Which planet is known as the red planet?|mars
What is the largest ocean on Earth?|pacific
What is the highest mountain in the world?|everest
What is the longest river in Africa?|nile
What is the largest animal on Earth?|whale
What is the chemical symbol of water?|h2o|h₂o
What gas do plants take in from the air?|carbon dioxide|co2
What gas do people need to breathe?|oxygen
At what temperature does water freeze in degrees Celsius?|0
At what temperature does water boil in degrees Celsius?|100
How many legs does a spider have?|eight|8
How many legs does an insect have?|six|6
How many days are in a week?|seven|7
How many months are in a year?|twelve|12
How many hours are in a day?|24|twenty four
How many minutes are in an hour?|60|sixty
How many continents are there?|seven|7
How many sides does a triangle have?|three|3
How many sides does a square have?|four|4
What is 2 plus 2?|4|four
What is 3 times 3?|9|nine
What is 10 minus 4?|6|six
What color is the sky on a clear day?|blue
What color is grass?|green
What color is a ripe banana?|yellow
What color is snow?|white
What is the opposite of hot?|cold
What is the opposite of big?|small|little
What is the opposite of up?|down
What is the opposite of day?|night
What is the opposite of happy?|sad|unhappy
Who wrote Romeo and Juliet?|shakespeare
Who wrote Hamlet?|shakespeare
Who painted the Mona Lisa?|leonardo|da vinci
Who was the first president of the United States?|washington
Who developed the theory of relativity?|einstein
Who discovered gravity when an apple fell?|newton
Who was the first person to walk on the Moon?|armstrong
What language is spoken in Brazil?|portuguese
What language is spoken in Mexico?|spanish
What language is spoken in Germany?|german
What is the currency of Japan?|yen
What is the currency of the United States?|dollar
What do bees make?|honey
What do cows give us to drink?|milk
What animal is known as man's best friend?|dog
What animal says meow?|cat
What is a baby dog called?|puppy
What is a baby cat called?|kitten
What organ pumps blood through the body?|heart
What organ do we use to think?|brain
What do we use to see?|eye
What do we use to hear?|ear
What is the star at the center of our solar system?|sun
What is frozen water called?|ice
What is the season after winter?|spring
What is the first month of the year?|january
What is the last month of the year?|december
What day comes after Monday?|tuesday
In which country is the Eiffel Tower?|france
In which country are the pyramids of Giza?|egypt
On which continent is Brazil?|south america
On which continent is Egypt?|africa
What metal is liquid at room temperature?|mercury
What is the hardest natural substance?|diamond
What is the main language of Australia?|english
What force pulls objects to the ground?|gravity
""".strip()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("models", nargs="+", type=Path, help="packed folders")
    options.add_argument("--original", type=Path, required=True, help="the original, packed in int8")
    options.add_argument("--out", type=Path, help="where to write all answers as JSON")
    given = options.parse_args()
    asked = [line.split("|") for line in QUESTIONS.splitlines()]
    first = answers(given.original, [question for question, *_ in asked])
    kept = [(*each, answer) for each, answer in zip(asked, first, strict=True) if right(answer, each[1:])][:ASKED]
    print(f"{given.original}: right on the {len(kept)} questions asked", flush=True)
    found = {"original": {question: answer for question, *_, answer in kept}}
    for model in given.models:
        said = answers(model, [question for question, *_ in kept])
        correct = sum(right(answer, each[1:-1]) for answer, each in zip(said, kept, strict=True))
        print(f"{model}: {correct} of {len(kept)} right, {sum(map(loops, said))} loops", flush=True)
        found[str(model)] = dict(zip((question for question, *_ in kept), said, strict=True))
    if given.out:
        given.out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def answers(folder: Path, questions: list[str]) -> list[str]:
    engine, tokenizer = Engine.open(folder), Tokenizer.open(folder)
    made = []
    for question in questions:
        ids = tokenizer.apply_chat([{"role": "user", "content": question}])
        made.append(tokenizer.decode(list(engine.generate(ids, Sampling(max_tokens=TOKENS), tokenizer.eos_ids))))
    return made


def right(answer: str, expected: list[str] | tuple[str, ...]) -> bool:
    """Whether one of the words is in it, in the singular or the plural."""
    said = f" {' '.join(''.join(c if c.isalnum() else ' ' for c in answer.lower()).split())} "
    return any(f" {word}{ending} " in said for word in expected for ending in ("", "s"))


def loops(answer: str) -> bool:
    words = answer.lower().split()
    grams = Counter(tuple(words[at : at + GRAM]) for at in range(len(words) - GRAM + 1))
    return max(grams.values(), default=0) >= TIMES


if __name__ == "__main__":
    main()
