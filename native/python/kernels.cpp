// Python's doors to the kernels: every shape, dtype and size is checked here, before native code runs.
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <tuple>
#include <vector>

#include "matrix.h"
#include "threads.h"

namespace tercet::python {
namespace {

template <class T, int D>
using In = nb::ndarray<const T, nb::ndim<D>, nb::c_contig, nb::device::cpu>;
template <class T>
using Out = nb::ndarray<nb::numpy, T>;

void require(bool condition, const char* message) {
    if (!condition) throw std::invalid_argument(message);
}

template <class T>
Out<T> make(std::initializer_list<size_t> shape) { // uninitialized
    size_t size = 1;
    for (size_t n : shape) size *= n;
    T* data = new T[size ? size : 1];
    nb::capsule owner(data, [](void* p) noexcept { delete[] (T*)p; });
    return Out<T>(data, shape, owner);
}

// Calls f(tile_begin, tile_end) for each thread's share of the row tiles.
template <class F>
void over_tiles(int32_t tiles, int threads, F&& f) {
    const int jobs = threads < tiles ? threads : tiles;
    ThreadPool::instance().run(jobs, [&](int i) {
        f((int32_t)((int64_t)tiles * i / jobs), (int32_t)((int64_t)tiles * (i + 1) / jobs));
    });
}

void check_call(const Matrix& w, size_t n, const std::optional<In<float, 1>>& bias, int threads) {
    require(n < (1u << 24), "linear: too many tokens");
    require(threads >= 1 && threads <= ThreadPool::MOST, "linear: threads must be 1 .. 256");
    require(!bias || (int64_t)bias->size() == w.view.rows, "linear: bias must be float32[rows]");
}

auto quantize(const std::string& isa, In<float, 2> x, int64_t group, int64_t stride) {
    const tercet_backend* b = backend(isa);
    const int64_t n = (int64_t)x.shape(0), cols = (int64_t)x.shape(1);
    require(n < (1 << 24) && cols >= 1 && cols <= INT32_MAX / 256, "quantize: size out of range");
    require(group >= 1 && group <= INT32_MAX && stride >= cols && stride <= INT32_MAX, "quantize: group or stride out of range");
    const int64_t groups = (cols + group - 1) / group;
    auto codes = make<int8_t>({(size_t)n, (size_t)stride});
    auto scale = make<float>({(size_t)n, (size_t)groups});
    auto sum = make<int32_t>({(size_t)n, (size_t)groups});
    const int bad = b->quantize(x.data(), cols, (int32_t)n, (int32_t)cols, (int32_t)group, (int32_t)groups, stride,
                                codes.data(), scale.data(), sum.data());
    require(!bad, "quantize: activations are not finite");
    return std::make_tuple(codes, scale, sum);
}

auto linear(const std::string& isa, const Matrix& w, In<int8_t, 2> codes, In<float, 2> scale, In<int32_t, 2> sum,
            std::optional<In<float, 1>> bias, int threads) {
    const tercet_backend* b = backend(isa);
    const size_t n = codes.shape(0), groups = (size_t)w.view.groups;
    check_call(w, n, bias, threads);
    require(w.packed(), "linear: int8 activations need a packed format");
    require(b->linear[w.view.format], "linear: the instruction set does not read this format; pack it as t2");
    require((int64_t)codes.shape(1) == w.stride(), "linear: the activations' stride does not fit the weights");
    require(scale.shape(0) == n && scale.shape(1) == groups && sum.shape(0) == n && sum.shape(1) == groups,
            "linear: activation scales and sums must be [n, groups]");
    auto y = make<float>({n, (size_t)w.view.rows});
    const tercet_activations x{(int32_t)n, w.view.groups, w.stride(), codes.data(), scale.data(), sum.data()};
    {
        nb::gil_scoped_release release;
        over_tiles(w.row_tiles(), threads, [&](int32_t begin, int32_t end) {
            b->linear[w.view.format](&w.view, &x, bias ? bias->data() : nullptr, y.data(), w.view.rows, begin, end);
        });
    }
    return y;
}

// Quantizes and multiplies: float32 in, float32 out.
auto matmul(const std::string& isa, const Matrix& w, In<float, 2> x, std::optional<In<float, 1>> bias, int threads) {
    require((int64_t)x.shape(1) == w.view.cols, "matmul: x must be float32[n, columns of the matrix]");
    require(w.packed(), "matmul: int8 activations need a packed format");
    auto [codes, scale, sum] = quantize(isa, x, w.view.group, w.stride());
    return linear(isa, w, In<int8_t, 2>(codes), In<float, 2>(scale), In<int32_t, 2>(sum), bias, threads);
}

auto linear_float(const std::string& isa, const Matrix& w, In<float, 2> x, std::optional<In<float, 1>> bias,
                  int threads) {
    const tercet_backend* b = backend(isa);
    const size_t n = x.shape(0);
    check_call(w, n, bias, threads);
    require((int64_t)x.shape(1) == w.view.cols, "linear_float: x must be float32[n, columns of the matrix]");
    auto y = make<float>({n, (size_t)w.view.rows});
    {
        nb::gil_scoped_release release;
        over_tiles(w.row_tiles(), threads, [&](int32_t begin, int32_t end) {
            b->linear_float(&w.view, x.data(), w.view.cols, (int32_t)n, bias ? bias->data() : nullptr, y.data(),
                            w.view.rows, begin, end);
        });
    }
    return y;
}

auto row(const std::string& isa, const Matrix& w, int64_t index, float factor) {
    require(index >= 0 && index < w.view.rows, "row: index out of range");
    auto y = make<float>({(size_t)w.view.cols});
    backend(isa)->row(&w.view, (int32_t)index, factor, y.data());
    return y;
}

} // namespace

void bind_vector_ops(nb::module_& m);

} // namespace tercet::python

void bind_kernels(nanobind::module_& m) {
    using namespace tercet::python;
    namespace nb = nanobind;
    m.def("backends", [] {
        std::vector<std::string> names;
        for (const char* const* name = tercet_backend_names(); *name; name++) names.push_back(*name);
        return names;
    });
    m.def("default_backend", [] { return std::string(backend("")->name); });
    m.def(
        "reads",
        [](const std::string& isa, int format) {
            const tercet_backend* b = backend(isa);
            return format >= 0 && format < TERCET_PACKED_FORMATS && b->linear[format];
        },
        nb::arg("isa"), nb::arg("format"));
    nb::class_<Matrix>(m, "Matrix")
        .def(nb::init<int, int64_t, int64_t, int64_t, Bytes, std::optional<Bytes>, std::optional<Bytes>>(),
             nb::arg("format"), nb::arg("rows"), nb::arg("cols"), nb::arg("group"), nb::arg("codes").noconvert(),
             nb::arg("scale").noconvert().none(), nb::arg("shift").noconvert().none())
        .def_prop_ro("rows", [](const Matrix& w) { return w.view.rows; })
        .def_prop_ro("cols", [](const Matrix& w) { return w.view.cols; })
        .def_prop_ro("group", [](const Matrix& w) { return w.view.group; })
        .def_prop_ro("stride", &Matrix::stride);
    m.def("quantize", &quantize, nb::arg("isa"), nb::arg("x"), nb::arg("group"), nb::arg("stride"));
    m.def("linear", &linear, nb::arg("isa"), nb::arg("weight"), nb::arg("codes"), nb::arg("scale"), nb::arg("sum"),
          nb::arg("bias").none(), nb::arg("threads"));
    m.def("matmul", &matmul, nb::arg("isa"), nb::arg("weight"), nb::arg("x"), nb::arg("bias").none(),
          nb::arg("threads"));
    m.def("linear_float", &linear_float, nb::arg("isa"), nb::arg("weight"), nb::arg("x"), nb::arg("bias").none(),
          nb::arg("threads"));
    m.def("row", &row, nb::arg("isa"), nb::arg("weight"), nb::arg("index"), nb::arg("factor"));
    bind_vector_ops(m);
}
