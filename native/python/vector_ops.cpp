// Python's doors to the float operations, checked as in kernels.cpp. They serve tests and `verify`; the engine calls
// the table itself.
#include <vector>

#include "matrix.h"

namespace tercet::python {
namespace {

template <int D>
using Floats = nb::ndarray<const float, nb::ndim<D>, nb::c_contig, nb::device::cpu>;
using Result = nb::ndarray<nb::numpy, float>;

void require(bool condition, const char* message) {
    if (!condition) throw std::invalid_argument(message);
}

template <class Array>
Result like(const Array& x) {
    size_t shape[3];
    for (size_t i = 0; i < x.ndim(); i++) shape[i] = x.shape(i);
    float* data = new float[x.size() ? x.size() : 1];
    nb::capsule owner(data, [](void* p) noexcept { delete[] (float*)p; });
    return Result(data, x.ndim(), shape, owner);
}

template <class Array>
void check_size(const Array& x) {
    require(x.size() < (1u << 30), "too many values");
}

auto rmsnorm(const std::string& isa, Floats<2> x, Floats<1> weight, float eps) {
    check_size(x);
    require(x.shape(1) >= 1 && weight.size() == x.shape(1), "rmsnorm: weight must be float32[dim]");
    auto y = like(x);
    backend(isa)->rmsnorm(x.data(), weight.data(), eps, (int32_t)x.shape(0), (int32_t)x.shape(1), y.data());
    return y;
}

auto layernorm(const std::string& isa, Floats<2> x, Floats<1> weight, std::optional<Floats<1>> bias, float eps) {
    check_size(x);
    require(x.shape(1) >= 1 && weight.size() == x.shape(1) && (!bias || bias->size() == x.shape(1)),
            "layernorm: weight and bias must be float32[dim]");
    auto y = like(x);
    backend(isa)->layernorm(x.data(), weight.data(), bias ? bias->data() : nullptr, eps, (int32_t)x.shape(0),
                            (int32_t)x.shape(1), y.data());
    return y;
}

auto rope(const std::string& isa, Floats<2> x, Floats<1> cos, Floats<1> sin) {
    check_size(x);
    require(cos.size() == sin.size() && 2 * cos.size() <= x.shape(1), "rope: cos and sin must be float32[rotary_dim/2]");
    auto y = like(x);
    std::copy(x.data(), x.data() + x.size(), y.data());
    backend(isa)->rope(y.data(), cos.data(), sin.data(), (int32_t)x.shape(0), (int32_t)x.shape(1),
                       (int32_t)(2 * cos.size()));
    return y;
}

// Causal attention of a whole sequence through a fresh cache: all keys are stored, then the tokens attend, `at_once`
// together and `split` query heads of a KV head together (0: all).
auto attention(const std::string& isa, Floats<3> q, Floats<3> k, Floats<3> v, int64_t window, float scale, int type,
               int64_t at_once, int64_t split) {
    check_size(q);
    check_size(k);
    const size_t tokens = q.shape(0), heads = q.shape(1), kv_heads = k.shape(1), dim = q.shape(2);
    require(k.shape(0) == tokens && k.shape(2) == dim, "attention: k must be float32[tokens, kv_heads, head_dim]");
    for (size_t i = 0; i < 3; i++) require(v.shape(i) == k.shape(i), "attention: k and v differ in shape");
    require(dim >= 1 && kv_heads >= 1 && heads >= 1 && heads % kv_heads == 0, "attention: kv_heads must divide heads");
    require(window >= 0 && window <= INT32_MAX, "attention: window out of range");
    require(type >= TERCET_KV_F16 && type <= TERCET_KV_I8, "attention: unknown cache type");
    require(at_once >= 1 && split >= 0, "attention: at_once or split out of range");
    const tercet_backend* b = backend(isa);
    const size_t block = tercet_kv_block_bytes(type, (int32_t)dim), blocks = (tokens + TERCET_KEY_BLOCK - 1) / TERCET_KEY_BLOCK;
    std::vector<char> memory(block * kv_heads * blocks + 64);
    char* aligned = memory.data() + (64 - (uintptr_t)memory.data() % 64) % 64;
    const tercet_kv kv{type, (int64_t)block, (int64_t)(block * kv_heads), aligned};
    const tercet_attention a{(int32_t)heads, (int32_t)kv_heads, (int32_t)dim, (int32_t)window, scale, 0};
    for (size_t t = 0; t < tokens; t++)
        b->kv_store(&kv, k.data() + t * kv_heads * dim, v.data() + t * kv_heads * dim, (int32_t)kv_heads, (int32_t)dim,
                    (int64_t)t);
    auto y = like(q);
    const size_t group = heads / kv_heads, part = split ? (size_t)split : group;
    for (size_t t = 0; t < tokens; t += (size_t)at_once)
        for (size_t h = 0; h < heads;) {
            const size_t n = std::min((size_t)at_once, tokens - t), count = std::min(part, group - h % group);
            b->attention(&a, &kv, q.data() + t * heads * dim, y.data() + t * heads * dim, (int32_t)n, (int64_t)t,
                         (int32_t)h, (int32_t)count);
            h += count;
        }
    return y;
}

void check_function(int function) {
    require(function >= TERCET_SILU && function <= TERCET_QUICK_GELU, "unknown activation function");
}

auto activate(const std::string& isa, int function, Floats<1> x) {
    check_function(function);
    auto y = like(x);
    backend(isa)->activate(function, x.data(), (int64_t)x.size(), y.data());
    return y;
}

auto gated(const std::string& isa, int function, Floats<1> gate, Floats<1> up) {
    check_function(function);
    require(gate.size() == up.size(), "gated: gate and up differ in size");
    auto y = like(gate);
    backend(isa)->gated(function, gate.data(), up.data(), (int64_t)gate.size(), y.data());
    return y;
}

auto add(const std::string& isa, Floats<1> a, Floats<1> b) {
    require(a.size() == b.size(), "add: a and b differ in size");
    auto y = like(a);
    backend(isa)->add(a.data(), b.data(), (int64_t)a.size(), y.data());
    return y;
}

auto clip(const std::string& isa, Floats<2> x, float limit) {
    check_size(x);
    require(limit > 0, "clip: limit must be positive");
    auto y = like(x);
    backend(isa)->clip(x.data(), (int64_t)x.size(), limit, y.data());
    return y;
}

auto rotate(const std::string& isa, Floats<2> x, int dim) {
    check_size(x);
    const int order = tercet_hadamard_order(dim);
    require(order > 0 && x.shape(1) % (size_t)dim == 0,
            "rotate: the block must be a power of two that divides the width");
    std::vector<float> signs((size_t)order * (size_t)order);
    if (order > 1) tercet_hadamard_signs(order, signs.data());
    const tercet_rotation rotation{dim, order, signs.data()};
    auto y = like(x);
    backend(isa)->rotate(x.data(), (int64_t)x.size(), &rotation, y.data());
    return y;
}

} // namespace

void bind_vector_ops(nb::module_& m) {
    m.def("rmsnorm", &rmsnorm);
    m.def("layernorm", &layernorm, nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg());
    m.def("rope", &rope);
    m.def("attention", &attention);
    m.def("activate", &activate);
    m.def("gated", &gated);
    m.def("add", &add);
    m.def("clip", &clip);
    m.def("rotate", &rotate);
}

} // namespace tercet::python
