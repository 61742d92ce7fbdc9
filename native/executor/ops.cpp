// The operations that compute, each on a member's part of the rows, heads or panels.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "executor/executor.h"
#include "executor/pieces.h"
#include "executor/span.h"

namespace bw {

namespace {
constexpr int kKeysOfACall = 8;  // that take as long as all else of an attention
}  // namespace

void Executor::rms_norm(const Op& op, int member) {
    const int rows = rows_of(op.a);
    const float* weight = program_.vectors[static_cast<size_t>(op.vector)].values.data();
    const Span own = part(rows * op.groups, member, team_.members());
    for (int i = own.from; i < own.to; i++) {
        const int r = i / op.groups, g = i % op.groups;
        kernels_.rms_norm(row(op.a, r) + g * op.dim, weight, row(op.out, r) + g * op.dim, op.dim,
                          op.eps);
    }
}

void Executor::layer_norm(const Op& op, int member) {
    const float* weight = program_.vectors[static_cast<size_t>(op.vector)].values.data();
    const Span own = part(rows_of(op.a) * op.groups, member, team_.members());
    for (int i = own.from; i < own.to; i++) {
        const int r = i / op.groups, at = i % op.groups * op.dim;
        kernels_.layer_norm(row(op.a, r) + at, weight, row(op.out, r) + at, op.dim, op.eps);
    }
}

void Executor::linear(const Op& op, int member) { product(op, member, false, {0, rows_of(op.a)}); }

void Executor::linear_grid(const Op& op, int member) { product(op, member, true, {0, step_.rows}); }

// The product of some of the step's rows.
void Executor::product(const Op& op, int member, bool on_grid, Span chosen) {
    const Matrix& matrix = program_.matrices[static_cast<size_t>(op.matrix)];
    const int rows = chosen.to - chosen.from;
    const bool quantised = is_quantised(matrix.format);
    ProductArgs args{};
    args.rows = rows;
    args.layout = matrix.layout;
    if (rows == 0) {
        if (quantised) barrier();
        return;
    }
    args.x = row(op.a, chosen.from);
    args.ldx = stride(op.a);
    if (quantised) {
        const size_t bytes = activation_bytes(matrix.format, matrix.layout);
        args.activation_stride = bytes;
        bool finite = true;
        if (rows == 1) {
            // Cheaper to do on every member than to meet at a barrier.
            uint8_t* own = scratch_[static_cast<size_t>(member)].data();
            finite = quantise_row(op, matrix, chosen.from, member, own);
            args.activations = own;
        } else {
            const Span own = part(rows, member, team_.members());
            for (int r = own.from; r < own.to; r++)
                finite &= quantise_row(op, matrix, chosen.from + r, member,
                                       activations_.data() + static_cast<size_t>(r) * bytes);
            args.activations = activations_.data();
        }
        if (!finite) fail(op, op.name + ": an activation is not finite");
        if (rows > 1) barrier();
    }
    const int piece = panels_of_a_piece(matrix, rows);
    stealing_.begin(member);
    for (Span panels{}; stealing_.take(member, matrix.num_panels(), &panels);) {
        for (int from = panels.from; from < panels.to; from += piece) {
            tick(member);
            product_panels(op, matrix, args, {from, std::min(from + piece, panels.to)}, chosen,
                           on_grid);
        }
    }
    if (member == 0) bill_->weight_bytes += matrix.bytes();
}

// A row of a product's input as integers, after the norm that was left to the product.
bool Executor::quantise_row(const Op& op, const Matrix& matrix, int index, int member,
                            uint8_t* activations) {
    const float* x = row(op.a, index);
    const int fused = fusion_.norm_of[static_cast<size_t>(&op - program_.ops.data())];
    if (fused >= 0) {
        const Op& norm = program_.ops[static_cast<size_t>(fused)];
        float* normal = normal_[static_cast<size_t>(member)].data();
        kernels_.rms_norm(row(norm.a, index),
                          program_.vectors[static_cast<size_t>(norm.vector)].values.data(), normal,
                          norm.dim, norm.eps);
        x = normal;
    }
    return kernels_.quantize(matrix.format, x, matrix.layout, activations);
}

void Executor::product_panels(const Op& op, const Matrix& matrix, ProductArgs args, Span panels,
                              Span rows, bool on_grid) {
    args.num_panels = panels.to - panels.from;
    args.ahead = fetch_ahead_;
    args.panel_stride = panel_bytes(matrix.format, matrix.layout);
    args.panels = matrix.panels + static_cast<size_t>(panels.from) * args.panel_stride;
    args.outputs = std::min(matrix.outputs, panels.to * kPanel) - panels.from * kPanel;
    args.ldy = stride(op.out);
    const auto format = static_cast<size_t>(matrix.format);
    if (on_grid) {
        Storage& storage = storage_[static_cast<size_t>(op.out.buffer)];
        args.grid = storage.grid.data() + static_cast<size_t>(rows.from) * storage.stride +
                    panels.from * kPanel;
        kernels_.linear_grid[format](args);
        if (args.bad) fail(op, op.name + ": a sum is not finite or too large for the grid");
    } else {
        args.y = row(op.out, rows.from) + panels.from * kPanel;
        if (op.vector >= 0)
            args.bias = program_.vectors[static_cast<size_t>(op.vector)].values.data() +
                        panels.from * kPanel;
        kernels_.linear[format](args);
    }
}

void Executor::rope(const Op& op, int member) {
    const Angles& angles = angles_[static_cast<size_t>(op.table)];
    const Span own = part(step_.rows * op.heads, member, team_.members());
    for (int i = own.from; i < own.to; i++) {
        const int r = i / op.heads, h = i % op.heads;
        const size_t at = static_cast<size_t>(r) * static_cast<size_t>(op.rotary / 2);
        const float* from = row(op.a, r) + h * op.dim + op.offset;
        float* to = row(op.out, r) + h * op.to_dim + op.to_offset;
        if (to != from) std::memcpy(to, from, sizeof(float) * static_cast<size_t>(op.rotary));
        kernels_.rope(to, angles.cosine.data() + at, angles.sine.data() + at, op.rotary,
                      op.interleaved == 1);
    }
}

void Executor::kv_append(const Op& op, int member) {
    const Span own = part(step_.rows * op.kv_heads, member, team_.members());
    for (int i = own.from; i < own.to; i++) {
        const int r = i / op.kv_heads, h = i % op.kv_heads, position = step_.positions[r];
        const int page = table_of(r)[position / kPage];
        if (!kernels_.kv_store(head_page(op.cache, page, h), row(op.a, r) + h * op.k_dim,
                               row(op.b, r) + h * op.v_dim, position % kPage, op.k_dim,
                               options_.half_kv))
            fail(op, op.name + ": a key or value is not finite in the KV cache's format");
    }
}

const int32_t* Executor::table_of(int row) const {
    return step_.tables +
           static_cast<size_t>(step_.slot_of[row]) * static_cast<size_t>(step_.pages);
}

// A member's heads of all rows: a row that looks back on more keys counts for more.
Span Executor::attention_part(const Op& op, int member) const {
    auto keys = [&](int r) {
        const int all = step_.positions[r] + 1;
        return kKeysOfACall + (op.window > 0 ? std::min(all, op.window) : all);
    };
    int64_t total = 0;
    for (int r = 0; r < step_.rows; r++) total += keys(r);
    const int64_t work = total * op.heads, members = team_.members();
    auto cut = [&](int m) {
        // work * m / members, which int64 need not hold on the way.
        int64_t left = work / members * m + work % members * m / members;
        for (int r = 0; r < step_.rows; r++) {
            const int64_t head = keys(r);
            if (left < head * op.heads) return r * op.heads + static_cast<int>(left / head);
            left -= head * op.heads;
        }
        return step_.rows * op.heads;
    };
    return {cut(member), cut(member + 1)};
}

void Executor::attention(const Op& op, int member) { attend_own(op, member, &Executor::attend); }

// A member's part of an attention.
void Executor::attend_own(const Op& op, int member, Attend attend) {
    const Span own = attention_part(op, member);
    for (int i = own.from; i < own.to;) {
        const int r = i / op.heads, first = i % op.heads;
        // Whole rows of a sequence go together, or what is the member's of a row.
        int rows = 1, stop = std::min(op.heads, own.to - r * op.heads);
        if (first == 0)
            while (r + rows < own.to / op.heads && step_.slot_of[r + rows] == step_.slot_of[r])
                rows++;
        (this->*attend)(op, member, {r, r + rows}, {first, stop});
        i = (r + rows - 1) * op.heads + stop;
    }
}

// Some heads of some rows of a sequence: a KV head serves all rows before the next one's turn, and
// stays in the caches meanwhile.
void Executor::attend(const Op& op, int member, Span rows, Span heads) {
    uint8_t* scratch = scratch_[static_cast<size_t>(member)].data();
    auto** pages = reinterpret_cast<const void**>(scratch);
    AttentionArgs args{};
    args.pages = pages;
    args.dim = op.k_dim;
    args.window = op.window;
    args.half = options_.half_kv;
    args.scale = op.scale;
    args.cap = op.cap;
    const float* sinks =
        op.vector >= 0 ? program_.vectors[static_cast<size_t>(op.vector)].values.data() : nullptr;
    args.q_stride = stride(op.a);
    args.out_stride = stride(op.out);
    args.scratch = reinterpret_cast<float*>(
        scratch + (sizeof(void*) * static_cast<size_t>(options_.max_slots_pages) + 63) / 64 * 64);
    const int32_t* table = table_of(rows.from);
    const int longest =
        *std::max_element(step_.positions + rows.from, step_.positions + rows.to) / kPage;
    for (int h = heads.from; h < heads.to; h += args.heads) {
        const int kv = op.kv_map[static_cast<size_t>(h)];
        args.heads = 1;
        while (args.heads < std::min(heads.to - h, kQueriesTogether) &&
               op.kv_map[static_cast<size_t>(h + args.heads)] == kv)
            args.heads++;
        args.sinks = sinks ? sinks + h : nullptr;
        for (int p = 0; p <= longest; p++) pages[p] = head_page(op.cache, table[p], kv);
        for (int r = rows.from; r < rows.to; r += args.rows) {
            args.rows = std::min(rows.to - r, kQueriesTogether / args.heads);
            args.positions = step_.positions + r;
            tick(member);
            args.q = row(op.a, r) + h * op.k_dim;
            args.out = row(op.out, r) + h * op.v_dim;
            kernels_.attention(args);
        }
    }
}

template <typename F>
void Executor::lanes(const Op& op, int member, F&& kernel) {
    // A row may be wide and alone: cut in vectors of 16.
    const int blocks = padded(op.out.width) / 16;
    const Span own = part(rows_of(op.out) * blocks, member, team_.members());
    for (int i = own.from; i < own.to;) {
        const int r = i / blocks, from = i % blocks;
        const int to = std::min(blocks, from + own.to - i);
        const int start = from * 16, stop = std::min(to * 16, op.out.width);
        kernel(r, start, stop - start);
        i += to - from;
    }
}

void Executor::gated_mul(const Op& op, int member) {
    lanes(op, member, [&](int r, int at, int count) {
        kernels_.gated_mul(static_cast<GateFunction>(op.function), row(op.a, r) + at,
                           row(op.b, r) + at, row(op.out, r) + at, count, op.limit, op.alpha);
    });
}

void Executor::add(const Op& op, int member) {
    lanes(op, member, [&](int r, int at, int count) {
        kernels_.add_scaled(row(op.a, r) + at, row(op.b, r) + at, op.factor, row(op.out, r) + at,
                            count);
    });
}

void Executor::scale(const Op& op, int member) {
    lanes(op, member, [&](int r, int at, int count) {
        kernels_.scale(row(op.a, r) + at, op.factor, row(op.out, r) + at, count);
    });
}

void Executor::soft_cap(const Op& op, int member) {
    lanes(op, member, [&](int r, int at, int count) {
        kernels_.soft_cap(row(op.a, r) + at, op.cap, row(op.out, r) + at, count);
    });
}

void Executor::square_sums(const Op& op, int member) {
    Storage& storage = storage_[static_cast<size_t>(op.out.buffer)];
    const Span own = part(step_.rows, member, team_.members());
    for (int r = own.from; r < own.to; r++) {
        int64_t* sums = storage.grid.data() + static_cast<size_t>(r) * storage.stride;
        std::fill(sums + op.begin, sums + op.end, 0);
        for (int h = op.skip; h < op.heads; h++) {
            const float sum = kernels_.sum_squares(row(op.a, r) + h * op.dim, op.dim);
            int32_t bits;
            std::memcpy(&bits, &sum, sizeof bits);
            sums[op.first + h] = bits & 0x7fffffff;
        }
    }
}

void Executor::norm_by_sums(const Op& op, int member) {
    const float* weight = program_.vectors[static_cast<size_t>(op.vector)].values.data();
    Storage& storage = storage_[static_cast<size_t>(op.b.buffer)];
    const Span own = part(step_.rows, member, team_.members());
    const auto elements = static_cast<float>((op.end - op.begin) * op.dim);
    for (int r = own.from; r < own.to; r++) {
        const int64_t* sums = storage.grid.data() + static_cast<size_t>(r) * storage.stride;
        float lanes[64] = {};
        for (int h = op.begin; h < op.end; h++) {
            const auto bits = static_cast<int32_t>(sums[h]);
            float sum;
            std::memcpy(&sum, &bits, sizeof sum);
            lanes[(h - op.begin) % 64] += sum;
        }
        for (int half = 32; half > 0; half /= 2)
            for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
        const float r_of = 1.0f / std::sqrt(lanes[0] / elements + op.eps);
        kernels_.scale_by(row(op.a, r), r_of, weight, row(op.out, r), op.a.width);
    }
}

void Executor::take_rows(const Op& op, int member) {
    const Span own = part(logit_rows_, member, team_.members());
    for (int i = own.from; i < own.to; i++)
        std::memcpy(row(op.out, i), row(op.a, logit_row_of_[static_cast<size_t>(i)]),
                    sizeof(float) * static_cast<size_t>(op.a.width));
}

void Executor::pick_rows(const Op& op, int member) {
    if (!step_.sources) return fail(op, op.name + ": the step names no rows to read");
    const Span own = part(step_.rows, member, team_.members());
    for (int i = own.from; i < own.to; i++)
        std::memcpy(row(op.out, i), row(op.a, step_.sources[i]),
                    sizeof(float) * static_cast<size_t>(op.a.width));
}

}  // namespace bw
