// Python's doors to what training does to weights (levels.h). bfloat16 comes as int16: numpy has no name for it.
#include "levels.h"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <stdexcept>

namespace nb = nanobind;

namespace tercet::python {
namespace {

template <class T>
using Matrix = nb::ndarray<T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

void require(bool condition, const char* message) {
    if (!condition) throw std::invalid_argument(message);
}

template <class A, class B>
void same_shape(const A& a, const B& b, const char* message) {
    require(a.shape(0) == b.shape(0) && a.shape(1) == b.shape(1), message);
}

TERCET_CLONES void forward_float32(const Levels& levels, const float* w, int8_t* codes, float* values) {
    forward_all(levels, w, codes, values);
}
TERCET_CLONES void forward_bfloat16(const Levels& levels, const float* w, int8_t* codes, uint16_t* values) {
    forward_all(levels, w, codes, values);
}
TERCET_CLONES void backward_float32(int64_t groups, int64_t each, const float* gradient, const int8_t* codes,
                                    float* weight, float* scale, float* shift) {
    backward_all(groups, each, gradient, codes, weight, scale, shift);
}
TERCET_CLONES void backward_bfloat16(int64_t groups, int64_t each, const uint16_t* gradient, const int8_t* codes,
                                     float* weight, float* scale, float* shift) {
    backward_all(groups, each, gradient, codes, weight, scale, shift);
}

// An array without elements stands for none.
template <class T>
T* data_or_null(const Matrix<T>& x) {
    return x.size() ? x.data() : nullptr;
}

template <class T>
Levels checked(const Matrix<const float>& w, const Matrix<const float>& scale, const Matrix<const float>& shift, bool binary,
               const Matrix<int8_t>& codes, const Matrix<T>& values) {
    require(scale.shape(0) == w.shape(0) && scale.shape(1) >= 1 && w.shape(1) % scale.shape(1) == 0,
            "levels: scale must be float32[rows, groups], and groups divide the columns");
    if (shift.size()) same_shape(shift, scale, "levels: shift must have scale's shape");
    same_shape(codes, w, "levels: codes must have the weight's shape");
    same_shape(values, w, "levels: values must have the weight's shape");
    return {scale.data(), data_or_null(shift), (int64_t)w.shape(0), (int64_t)w.shape(1),
            (int64_t)scale.shape(1), binary};
}

void forward32(Matrix<const float> w, Matrix<const float> scale, Matrix<const float> shift, bool binary, Matrix<int8_t> codes,
               Matrix<float> values) {
    const Levels levels = checked(w, scale, shift, binary, codes, values);
    nb::gil_scoped_release release;
    forward_float32(levels, w.data(), codes.data(), values.data());
}

void forward16(Matrix<const float> w, Matrix<const float> scale, Matrix<const float> shift, bool binary, Matrix<int8_t> codes,
               Matrix<int16_t> values) {
    const Levels levels = checked(w, scale, shift, binary, codes, values);
    nb::gil_scoped_release release;
    forward_bfloat16(levels, w.data(), codes.data(), (uint16_t*)values.data());
}

template <class T>
int64_t checked_backward(const Matrix<T>& gradient, const Matrix<const int8_t>& codes, const Matrix<float>& weight,
                         const Matrix<float>& scale, const Matrix<float>& shift) {
    same_shape(codes, gradient, "levels: codes must have the gradient's shape");
    same_shape(weight, gradient, "levels: the weight's gradient must have the gradient's shape");
    require(scale.shape(0) == gradient.shape(0) && scale.shape(1) >= 1 && gradient.shape(1) % scale.shape(1) == 0,
            "levels: the scale's gradient must be float32[rows, groups], and groups divide the columns");
    if (shift.size()) same_shape(shift, scale, "levels: the shift's gradient must have the scale's shape");
    return (int64_t)(gradient.shape(1) / scale.shape(1));
}

void backward32(Matrix<const float> gradient, Matrix<const int8_t> codes, Matrix<float> weight, Matrix<float> scale,
                Matrix<float> shift) {
    const int64_t each = checked_backward(gradient, codes, weight, scale, shift);
    nb::gil_scoped_release release;
    backward_float32((int64_t)scale.size(), each, gradient.data(), codes.data(), weight.data(), scale.data(),
                     data_or_null(shift));
}

void backward16(Matrix<const int16_t> gradient, Matrix<const int8_t> codes, Matrix<float> weight, Matrix<float> scale,
                Matrix<float> shift) {
    const int64_t each = checked_backward(gradient, codes, weight, scale, shift);
    nb::gil_scoped_release release;
    backward_bfloat16((int64_t)scale.size(), each, (const uint16_t*)gradient.data(), codes.data(), weight.data(),
                      scale.data(), data_or_null(shift));
}

} // namespace
} // namespace tercet::python

void bind_levels(nb::module_& m) {
    using namespace tercet::python;
    const auto w = nb::arg("weight").noconvert(), s = nb::arg("scale").noconvert(), c = nb::arg("codes").noconvert();
    const auto v = nb::arg("values").noconvert(), g = nb::arg("gradient").noconvert();
    m.def("levels_forward", forward32, w, s, nb::arg("shift").noconvert(), nb::arg("binary"), c, v);
    m.def("levels_forward", forward16, w, s, nb::arg("shift").noconvert(), nb::arg("binary"), c, v);
    m.def("levels_backward", backward32, g, c, w, s, nb::arg("shift").noconvert());
    m.def("levels_backward", backward16, g, c, w, s, nb::arg("shift").noconvert());
}
