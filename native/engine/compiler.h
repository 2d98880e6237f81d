// What compiling a decoder and a tower have in common: buffers and their memory, weights looked up and checked, the
// operations that touch a row at a time, linears.
#ifndef TERCET_ENGINE_COMPILER_H
#define TERCET_ENGINE_COMPILER_H

#include "engine/plan.h"

namespace tercet {

class Compiler {
protected:
    // `result` is filled; it and the program outlive the compiler.
    Compiler(const ProgramSpec& program, bool quantize, Plan& result);

    int count() const { return static_cast<int>(spec.ops.size()); }

    // Gives each buffer a place. `output`: the one that lies in the caller's array. `given`: read without being written
    // by any operation; "" for none.
    void assign_buffers(const std::string& output, const std::string& given);
    int hidden_buffer(int columns, int operation); // used within one operation; made before assign_slots
    void assign_slots(const std::string& output);

    std::string where() const { return op->weight.empty() ? "operation writing " + op->output : op->weight; }
    int in(size_t index) const;
    int out() const { return ids.at(op->output); }
    int width(int buffer) const { return plan.buffers[static_cast<size_t>(buffer)].width; }
    RowCount& rows(int buffer) { return counts[static_cast<size_t>(buffer)]; }
    void expect(bool ok, const std::string& what) const;
    void expect_width(int buffer, int64_t expected) const;
    const tercet_matrix* matrix() const;
    // A copy of a norm's weight or a bias with `offset` added; "" gives NULL.
    const float* vector(const std::string& name, int size, float offset);

    // `alone`: reads rows of others, which must all be there, and stay till all have been read.
    Phase& phase(PhaseKind kind, RowCount rows_of_it, bool alone = false);
    void row(RowOp row_op, RowCount rows_of_it, bool alone = false);
    void written(int buffer, RowCount rows_of_it); // and so no longer what was quantized of it
    void check_attention();                        // heads and widths
    void lower_common();                           // any operation but those that know more than their row
    void embed();

    const ProgramSpec& spec;
    Plan& plan;
    const OpSpec* op = nullptr;
    std::vector<int> first_write, last_use; // of each buffer, as indices of operations
    std::vector<int> quantized_of;          // the buffer each QuantizedBuffer now holds, or -1
    std::unordered_map<std::string, int> ids; // buffer of a name

private:
    int width_of(const std::string& name) const;
    int new_buffer(int columns, int operation);
    int shared_slot(size_t buffer, const std::vector<int>& busy_until) const;
    void norm();
    void elementwise(RowOp r, size_t inputs);
    void clip();
    void rotate();
    void rotation(RowOp& r, int columns); // what `r` turns: blocks of that many columns
    void linear();
    int quantized_area(const tercet_matrix& w);

    const bool quantize;
    std::vector<RowCount> counts; // rows each buffer now has
};

} // namespace tercet
#endif
