// Latent attention, and products that each head has of its own.
#include <algorithm>
#include <cstring>

#include "executor/executor.h"
#include "executor/pieces.h"
#include "executor/span.h"

namespace bw {

void Executor::latent_append(const Op& op, int member) {
    const Span own = part(step_.rows, member, team_.members());
    for (int r = own.from; r < own.to; r++) {
        const int position = step_.positions[r];
        uint8_t* page = head_page(op.cache, table_of(r)[position / kPage], 0);
        if (!kernels_.latent_store(page, row(op.a, r), position % kPage, op.k_dim,
                                   options_.half_kv))
            fail(op, op.name + ": a key is not finite in the KV cache's format");
    }
}

void Executor::latent_attention(const Op& op, int member) {
    attend_own(op, member, &Executor::attend_latent);
}

void Executor::attend_latent(const Op& op, int member, Span rows, Span heads) {
    uint8_t* scratch = scratch_[static_cast<size_t>(member)].data();
    auto** pages = reinterpret_cast<const void**>(scratch);
    LatentArgs args{};
    args.pages = pages;
    args.k_dim = op.k_dim;
    args.v_dim = op.v_dim;
    args.half = options_.half_kv;
    args.scale = op.scale;
    args.q_stride = stride(op.a);
    args.out_stride = stride(op.out);
    args.scratch = reinterpret_cast<float*>(
        scratch + (sizeof(void*) * static_cast<size_t>(options_.max_slots_pages) + 63) / 64 * 64);
    const int32_t* table = table_of(rows.from);
    const int longest =
        *std::max_element(step_.positions + rows.from, step_.positions + rows.to) / kPage;
    for (int p = 0; p <= longest; p++) pages[p] = head_page(op.cache, table[p], 0);
    for (int h = heads.from; h < heads.to; h += args.heads) {
        args.heads = std::min(heads.to - h, kLatentQueries);
        for (int r = rows.from; r < rows.to; r += args.rows) {
            args.rows = std::min(rows.to - r, kLatentQueries / args.heads);
            args.positions = step_.positions + r;
            tick(member);
            args.q = row(op.a, r) + h * op.k_dim;
            args.out = row(op.out, r) + h * op.v_dim;
            kernels_.latent_attention(args);
        }
    }
}

void Executor::head_linear(const Op& op, int member) {
    const int rows = step_.rows, heads = static_cast<int>(op.matrices.size());
    const int in = op.a.width / heads, out = op.out.width / heads;
    const Matrix& first = program_.matrices[static_cast<size_t>(op.matrices[0])];
    const bool quantised = is_quantised(first.format);
    const size_t bytes = activation_bytes(first.format, first.layout);
    auto input = [&](int h, int r) {
        return gathered_.data() +
               (static_cast<size_t>(h) * static_cast<size_t>(rows) + static_cast<size_t>(r)) *
                   bytes;
    };
    if (quantised) {
        bool finite = true;
        const Span own = part(rows * heads, member, team_.members());
        for (int i = own.from; i < own.to; i++) {
            const int h = i / rows, r = i % rows;
            finite &=
                kernels_.quantize(first.format, row(op.a, r) + h * in, first.layout, input(h, r));
        }
        if (!finite) fail(op, op.name + ": an activation is not finite");
        barrier();
    }
    const int panels = first.num_panels();
    const size_t each = panel_bytes(first.format, first.layout);
    const int piece = panels_of_a_piece(first, rows);
    stealing_.begin(member);
    for (Span some{}; stealing_.take(member, heads * panels, &some);) {
        for (int at = some.from; at < some.to;) {
            const int h = at / panels, from = at % panels;
            const int to = std::min({panels, from + some.to - at, from + piece});
            const Matrix& matrix =
                program_.matrices[static_cast<size_t>(op.matrices[static_cast<size_t>(h)])];
            tick(member);
            ProductArgs args{};
            args.rows = rows;
            args.layout = matrix.layout;
            args.x = row(op.a, 0) + h * in;
            args.ldx = stride(op.a);
            args.activations = quantised ? input(h, 0) : nullptr;
            args.activation_stride = bytes;
            args.panel_stride = each;
            args.ahead = fetch_ahead_;
            args.panels = matrix.panels + static_cast<size_t>(from) * each;
            args.num_panels = to - from;
            args.outputs = std::min(matrix.outputs, to * kPanel) - from * kPanel;
            args.y = row(op.out, 0) + h * out + from * kPanel;
            args.ldy = stride(op.out);
            kernels_.linear[static_cast<size_t>(matrix.format)](args);
            at += to - from;
        }
    }
    if (member != 0) return;
    for (int index : op.matrices)
        bill_->weight_bytes += program_.matrices[static_cast<size_t>(index)].bytes();
}

// What products of heads need beside their buffers, for each row of a step.
size_t Executor::head_input_bytes() const {
    size_t most = 0;
    for (const Op& op : program_.ops) {
        if (op.kind != OpKind::head_linear) continue;
        const Matrix& first = program_.matrices[static_cast<size_t>(op.matrices[0])];
        most = std::max(most, op.matrices.size() * activation_bytes(first.format, first.layout));
    }
    return most;
}

}  // namespace bw
