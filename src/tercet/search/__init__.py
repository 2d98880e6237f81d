"""Folders of pictures, found by words: an index of embeddings, kept up to date, and what is asked of it.

folder -> scan -> what is new or changed -> Clip -> segments (store) -> faiss, exactly -> table, JSON, contact sheet
"""

from tercet.search.find import Hit, find
from tercet.search.indexing import Progress, Report, build
from tercet.search.store import Entry, Index

__all__ = ["Entry", "Hit", "Index", "Progress", "Report", "build", "find"]
