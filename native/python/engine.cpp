// Python's view of the engine; tercet.runtime.text.engine wraps it. Steps run without the GIL.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <map>

#include "engine/engine.h"
#include "engine/sampling.h"
#include "engine/tower.h"
#include "matrix.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace tercet {
namespace {

using Floats = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Ids = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Logits = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Rows = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Texts = nb::ndarray<const int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Pictures = nb::ndarray<const float, nb::ndim<4>, nb::c_contig, nb::device::cpu>;

int kind_of(const std::string& name, const std::map<std::string, int>& table) {
    const auto found = table.find(name);
    if (found == table.end()) throw EngineError("unknown name in the program: " + name);
    return found->second;
}

const std::map<std::string, int> KINDS = {
    {"embed", static_cast<int>(Kind::embed)},         {"rmsnorm", static_cast<int>(Kind::rmsnorm)},
    {"layernorm", static_cast<int>(Kind::layernorm)}, {"linear", static_cast<int>(Kind::linear)},
    {"rope", static_cast<int>(Kind::rope)},           {"attention", static_cast<int>(Kind::attention)},
    {"activation", static_cast<int>(Kind::activation)}, {"gated", static_cast<int>(Kind::gated)},
    {"add", static_cast<int>(Kind::add)},             {"clip", static_cast<int>(Kind::clip)},
    {"rotate", static_cast<int>(Kind::rotate)},       {"prepend", static_cast<int>(Kind::prepend)},
    {"position", static_cast<int>(Kind::position)},   {"constant", static_cast<int>(Kind::constant)},
    {"pick", static_cast<int>(Kind::pick)},           {"drop", static_cast<int>(Kind::drop)},
};
const std::map<std::string, int> FUNCTIONS = {
    {"silu", TERCET_SILU}, {"gelu", TERCET_GELU}, {"gelu_tanh", TERCET_GELU_TANH}, {"quick_gelu", TERCET_QUICK_GELU}};
const std::map<std::string, int> ROWS = {{"first", static_cast<int>(PickedRow::first)},
                                         {"last", static_cast<int>(PickedRow::last)},
                                         {"end", static_cast<int>(PickedRow::end)}};
const std::map<std::string, int> KV_TYPES = {
    {"float16", TERCET_KV_F16}, {"float32", TERCET_KV_F32}, {"int8", TERCET_KV_I8}};

// A program under construction, and the arrays its matrices point into.
struct Builder {
    ProgramSpec spec;
    std::vector<nb::object> kept;

    void matrix(const std::string& name, nb::object matrix) {
        spec.matrices[name] = nb::cast<const python::Matrix&>(matrix).view;
        kept.push_back(std::move(matrix));
    }

    void vector(const std::string& name, Floats values) {
        spec.vectors[name] = std::vector<float>(values.data(), values.data() + values.size());
    }

    void rope(Floats inv_freq, float factor) {
        spec.ropes.push_back({std::vector<float>(inv_freq.data(), inv_freq.data() + inv_freq.size()), factor});
    }

    void op(const std::string& kind, std::vector<std::string> inputs, const std::string& output, const std::string& weight,
            const std::string& bias, float eps, int dim, float offset, float factor, int heads, int kv_heads,
            int head_dim, int window, int layer, int rope, const std::string& function, float limit, bool causal,
            const std::string& row, int token) {
        OpSpec o;
        o.kind = static_cast<Kind>(kind_of(kind, KINDS));
        o.inputs = std::move(inputs);
        o.output = output;
        o.weight = weight;
        o.bias = bias;
        o.eps = eps;
        o.dim = dim;
        o.offset = offset;
        o.factor = factor;
        o.heads = heads;
        o.kv_heads = kv_heads;
        o.head_dim = head_dim;
        o.window = window;
        o.layer = layer;
        o.rope = rope;
        o.function = kind_of(function, FUNCTIONS);
        o.limit = limit;
        o.causal = causal;
        o.row = static_cast<PickedRow>(kind_of(row, ROWS));
        o.token = token;
        spec.ops.push_back(std::move(o));
    }
};

// An engine and the arrays it reads; sequences keep it alive.
struct PyEngine {
    std::vector<nb::object> kept;
    Engine engine;

    PyEngine(const Builder& builder, const EngineOptions& options) : kept(builder.kept), engine(builder.spec, options) {}
};

const tercet_backend& backend_of(const std::string& isa) {
    try {
        return *python::backend(isa);
    } catch (const std::invalid_argument& error) {
        throw EngineError(error.what());
    }
}

EngineOptions options_of(const std::string& isa, int threads, int chunk, bool quantize, const std::string& kv,
                         int64_t context) {
    EngineOptions options;
    options.backend = &backend_of(isa);
    options.threads = threads;
    options.chunk = chunk;
    options.quantize = quantize;
    options.kv = static_cast<tercet_kv_type>(kind_of(kv, KV_TYPES));
    options.context = context;
    return options;
}

// Ids of one part: an array, or a short list, which costs less to make for every token.
struct GivenIds {
    Ids array;
    std::vector<int32_t> list;

    explicit GivenIds(nb::handle given) {
        if (nb::isinstance<nb::list>(given)) list = nb::cast<std::vector<int32_t>>(given);
        else array = nb::cast<Ids>(given);
    }
    const int32_t* data() const { return array.is_valid() ? array.data() : list.data(); }
    size_t size() const { return array.is_valid() ? array.size() : list.size(); }
};

// Rows from elsewhere, and the arrays they lie in.
struct Blocks {
    std::vector<Rows> arrays;
    std::vector<GivenRows> blocks;

    Blocks(const nb::list& given, int width) {
        for (const nb::handle one : given) {
            auto [first, rows] = nb::cast<std::pair<int32_t, Rows>>(one);
            if (rows.shape(1) != static_cast<size_t>(width)) throw EngineError("given rows have the wrong width");
            blocks.push_back({first, static_cast<int64_t>(rows.shape(0)), rows.data()});
            arrays.push_back(std::move(rows));
        }
    }
};

void step(PyEngine& self, const std::vector<Sequence*>& sequences, const nb::list& given,
          const std::vector<int64_t>& wanted, Logits logits, const nb::list& given_rows) {
    std::vector<GivenIds> ids;
    for (const nb::handle one : given) ids.emplace_back(one);
    const Blocks rows_given(given_rows, self.engine.embedding_width());
    if (sequences.size() != ids.size() || wanted.size() != ids.size())
        throw EngineError("as many id lists and counts as sequences are needed");
    std::vector<Part> parts;
    int64_t rows = 0;
    for (size_t i = 0; i < ids.size(); ++i) {
        if (!sequences[i]) throw EngineError("a sequence is None");
        parts.push_back({sequences[i], ids[i].data(), static_cast<int64_t>(ids[i].size()), wanted[i]});
        rows += wanted[i];
    }
    if (rows < 0 || logits.shape(0) != static_cast<size_t>(rows) || logits.shape(1) != static_cast<size_t>(self.engine.vocab()))
        throw EngineError("logits has the wrong shape");
    float* out = logits.data();
    const nb::gil_scoped_release release;
    self.engine.step(parts, out, rows_given.blocks);
}

// A tower and the arrays it reads.
struct PyTower {
    std::vector<nb::object> kept;
    Tower tower;

    PyTower(const Builder& builder, const TowerOptions& options) : kept(builder.kept), tower(builder.spec, options) {}

    size_t made(size_t length) const { return static_cast<size_t>(tower.made(static_cast<int64_t>(length))); }

    float* target(Logits& result, size_t n) const {
        if (result.shape(0) != n || result.shape(1) != static_cast<size_t>(tower.dim()))
            throw EngineError("the result's array has the wrong shape");
        return result.data();
    }

    void ids(Texts given, Logits result) {
        float* out = target(result, given.shape(0) * made(given.shape(1)));
        const nb::gil_scoped_release release;
        tower.run_ids(given.data(), static_cast<int64_t>(given.shape(0)), static_cast<int64_t>(given.shape(1)), out);
    }

    void pixels(Pictures given, int64_t patch, Logits result) {
        float* out = target(result, given.shape(0) * made(static_cast<size_t>(tower.context())));
        const Pixels pixels = {given.data(), static_cast<int64_t>(given.shape(1)), static_cast<int64_t>(given.shape(2)),
                               static_cast<int64_t>(given.shape(3)), patch};
        const nb::gil_scoped_release release;
        tower.run_pixels(pixels, static_cast<int64_t>(given.shape(0)), out);
    }
};

void accept(Sampler& sampler, int32_t id) {
    if (id < 0 || id >= sampler.vocab())
        throw EngineError("token id " + std::to_string(id) + " is outside the vocabulary");
    sampler.accept(id);
}

} // namespace
} // namespace tercet

void bind_engine(nb::module_& module) {
    using namespace tercet;

    nb::register_exception_translator([](const std::exception_ptr& thrown, void*) {
        try {
            std::rethrow_exception(thrown);
        } catch (const EngineError& error) {
            PyErr_SetString(nb::module_::import_("tercet.errors").attr("EngineError").ptr(), error.what());
        }
    });

    nb::class_<Builder>(module, "ProgramBuilder")
        .def(nb::init<>())
        .def("matrix", &Builder::matrix, "name"_a, "matrix"_a)
        .def("vector", &Builder::vector, "name"_a, "values"_a)
        .def("rope", &Builder::rope, "inv_freq"_a, "factor"_a)
        .def("width", [](Builder& self, const std::string& name, int width) { self.spec.widths[name] = width; })
        .def("vocab", [](Builder& self, int size) { self.spec.vocab = size; })
        .def("op", &Builder::op, "kind"_a, "inputs"_a, "output"_a, "weight"_a, "bias"_a, "eps"_a, "dim"_a, "offset"_a,
             "factor"_a, "heads"_a, "kv_heads"_a, "head_dim"_a, "window"_a, "layer"_a, "rope"_a, "function"_a,
             "limit"_a = 0.0f, "causal"_a = true, "row"_a = "first", "token"_a = -1);

    nb::class_<Sequence>(module, "Sequence", nb::is_weak_referenceable())
        .def_prop_ro("length", &Sequence::length)
        .def_prop_ro("kv_bytes", &Sequence::kv_bytes);

    nb::class_<PyEngine>(module, "Engine")
        .def(
            "__init__",
            [](PyEngine* self, const Builder& builder, const std::string& isa, int threads, int chunk, bool quantize,
               const std::string& kv, int64_t context) {
                new (self) PyEngine(builder, options_of(isa, threads, chunk, quantize, kv, context));
            },
            "builder"_a, "isa"_a, "threads"_a, "chunk"_a, "quantize"_a, "kv"_a, "context"_a)
        .def_prop_ro("isa", [](const PyEngine& self) { return self.engine.isa(); })
        .def_prop_ro("width", [](const PyEngine& self) { return self.engine.embedding_width(); })
        .def("sequence", [](PyEngine& self) { return self.engine.sequence(); })
        .def("rewind",
             [](PyEngine& self, Sequence& sequence, int64_t length) {
                 const nb::gil_scoped_release release;
                 const std::lock_guard<ForkMutex> guard(self.engine.lock());
                 sequence.rewind(length);
             })
        .def("fork",
             [](PyEngine& self, const Sequence& sequence, int64_t length) {
                 const nb::gil_scoped_release release;
                 const std::lock_guard<ForkMutex> guard(self.engine.lock());
                 return sequence.fork(length);
             })
        .def("step", &step, "sequences"_a, "ids"_a, "wanted"_a, "logits"_a, "given"_a = nb::list());

    nb::class_<PyTower>(module, "Tower")
        .def(
            "__init__",
            [](PyTower* self, const Builder& builder, const std::string& isa, int threads, int chunk, bool quantize,
               int64_t context) {
                new (self) PyTower(builder, {&backend_of(isa), threads, chunk, quantize, context});
            },
            "builder"_a, "isa"_a, "threads"_a, "chunk"_a, "quantize"_a, "context"_a)
        .def_prop_ro("isa", [](const PyTower& self) { return self.tower.isa(); })
        .def_prop_ro("dim", [](const PyTower& self) { return self.tower.dim(); })
        .def("rows", [](const PyTower& self, int64_t length) { return self.tower.made(length); }, "length"_a)
        .def("ids", &PyTower::ids, "ids"_a, "result"_a)
        .def("pixels", &PyTower::pixels, "pixels"_a, "patch"_a, "result"_a);

    nb::class_<Sampler>(module, "Sampler")
        .def(
            "__init__",
            [](Sampler* self, int32_t vocab, float temperature, int32_t top_k, float top_p, float min_p,
               float repetition_penalty, uint64_t seed, const std::string& isa) {
                if (vocab < 1) throw EngineError("a sampler needs a vocabulary");
                new (self) Sampler({temperature, top_k, top_p, min_p, repetition_penalty, seed}, vocab, backend_of(isa));
            },
            "vocab"_a, "temperature"_a, "top_k"_a, "top_p"_a, "min_p"_a, "repetition_penalty"_a, "seed"_a,
            "isa"_a = "")
        .def("accept", &accept)
        .def("accept",
             [](Sampler& self, Ids ids) {
                 for (size_t i = 0; i < ids.size(); ++i) accept(self, ids.data()[i]);
             })
        .def("sample", [](Sampler& self, Logits logits, size_t row) {
            if (logits.shape(1) != static_cast<size_t>(self.vocab())) throw EngineError("logits do not fit the vocabulary");
            if (row >= logits.shape(0)) throw EngineError("logits have no such row");
            return self.sample(logits.data() + row * logits.shape(1));
        })
        .def("sample", [](Sampler& self, Floats logits) {
            if (static_cast<int32_t>(logits.size()) != self.vocab()) throw EngineError("logits do not fit the vocabulary");
            return self.sample(logits.data());
        });
}
