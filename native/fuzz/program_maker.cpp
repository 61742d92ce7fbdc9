#include "fuzz/program_maker.h"

#include <algorithm>
#include <array>
#include <climits>
#include <string>

namespace bw::fuzz {

namespace {

class Maker {
  public:
    Maker(Random& random, MadeProgram& made) : random_(random), made_(made), p_(made.program) {}

    void make() {
        sizes();
        x_ = buffer(p_.hidden_size);
        op(OpKind::embed, {}, x_).group = {0};
        for (int layer = 0; layer < layers_; layer++) {
            if (random_.chance(60)) attention();
            if (random_.chance(40)) latent();
            if (random_.chance(40)) delta();
            if (random_.chance(50)) gated();
            if (random_.chance(50)) mixture();
            if (random_.chance(40)) aside();
        }
        logits();
    }

  private:
    int size() { return random_.pick({1, 7, 16, 33, 64, 256, random_.between(1, 200)}); }
    // One of those that such units don't cut a block of.
    Format format(int inputs, int unit) {
        std::vector<Format> fitting;
        for (int i = 0; i < kFormats; i++) {
            const auto one = static_cast<Format>(i);
            const int whole = whole_columns(one);
            if (inputs % whole == 0 && unit % whole == 0) fitting.push_back(one);
        }
        return fitting[random_.below(fitting.size())];
    }

    void sizes() {
        p_.hidden_size = size();
        p_.vocab_size = size() + 1;
        layers_ = random_.between(1, 2);
        dims_ = {random_.between(1, 40), random_.between(1, 40)};
        for (int table = random_.between(1, 2); table > 0; table--) {
            const int most = *std::min_element(dims_.begin(), dims_.end()) / 2;
            p_.frequencies.emplace_back();
            for (int i = random_.between(0, most); i > 0; i--)
                p_.frequencies.back().values.push_back(random_.number());
            if (random_.chance(30)) p_.frequencies.back().factor = 1.25;
        }
        ExecutorOptions& options = made_.options;
        options.max_rows = random_.pick({1, 3, 17, random_.between(1, 40)});
        options.num_pages = random_.between(1, 6);
        options.max_slots_pages = random_.between(1, options.num_pages);
        options.num_states = options.num_pages + 1;  // one more than there can be sequences
        options.max_drafted = random_.between(0, 5);
        options.half_kv = random_.chance(50);
        options.threads = random_.pick({1, 1, 2, 2, 3});
        options.spin = false;
        options.fetch_ahead = random_.pick<int64_t>({-1, 0, 4096});
    }

    View buffer(int width, bool grid = false, bool logit_rows = false) {
        // Sometimes in the midst of a wider one, where a panel may begin.
        const int before = !grid && random_.chance(20) ? 16 * random_.between(0, 3) : 0;
        const int behind = random_.chance(20) ? random_.between(0, 40) : 0;
        p_.buffers.push_back({before + width + behind, grid, logit_rows});
        return {static_cast<int>(p_.buffers.size()) - 1, before, width};
    }
    int vector(int width) {
        std::vector<float> values(static_cast<size_t>(width));
        for (float& value : values) value = 1.0f + random_.number() / 4;
        p_.vectors.push_back({width, std::move(values)});
        return static_cast<int>(p_.vectors.size()) - 1;
    }
    int matrix(Format format, int inputs, int unit, int outputs) {
        p_.matrices.push_back(made_.weights.add_random(random_, format, inputs, unit, outputs));
        return static_cast<int>(p_.matrices.size()) - 1;
    }
    Op& op(OpKind kind, View in, View out) {
        Op op;
        op.kind = kind;
        op.name = "operation " + std::to_string(p_.ops.size());
        op.a = in;
        op.out = out;
        op.tag = static_cast<uint32_t>(p_.ops.size());
        p_.ops.push_back(op);
        return p_.ops.back();
    }

    View norm(View in, bool logit_rows = false) {
        const View out = buffer(in.width, false, logit_rows);
        Op& norm = op(OpKind::rms_norm, in, out);
        norm.groups = 1;
        norm.dim = in.width;
        norm.eps = 1e-5f;
        norm.vector = vector(in.width);
        return out;
    }
    View linear(View in, int outputs, bool logit_rows = false) {
        const View out = buffer(outputs, false, logit_rows);
        Op& product = op(OpKind::linear, in, out);
        const int unit = random_.pick({in.width, in.width, 1, 40});
        product.matrix = matrix(format(in.width, unit), in.width, unit, outputs);
        if (random_.chance(30)) product.vector = vector(outputs);
        return out;
    }
    // x += in @ weight, over the grid.
    void add_product(View in, int unit) {
        const View grid = buffer(p_.hidden_size, true);
        op(OpKind::linear_grid, in, grid).matrix =
            matrix(format(in.width, unit), in.width, unit, p_.hidden_size);
        Op& reduce = op(OpKind::all_reduce_add, grid, x_);
        reduce.b = x_;
        reduce.group = reduce.contributors = {0};
        if (random_.chance(30)) reduce.vector = vector(p_.hidden_size);
    }

    void head_norm(View view, int heads) {
        Op& norm = op(OpKind::rms_norm, view, view);
        norm.groups = heads;
        norm.dim = view.width / heads;
        norm.eps = 1e-6f;
        norm.vector = vector(norm.dim);
    }
    void rope(View view, int heads, int table = -1) {
        Op& rope = op(OpKind::rope, view, view);
        rope.heads = heads;
        rope.dim = view.width / heads;
        rope.table = table >= 0 ? table : static_cast<int>(random_.below(p_.frequencies.size()));
        rope.rotary =
            static_cast<int>(2 * p_.frequencies[static_cast<size_t>(rope.table)].values.size());
        rope.offset = random_.chance(50) ? 0 : random_.between(0, rope.dim - rope.rotary);
        rope.to_dim = rope.dim;
        rope.to_offset = rope.offset;
        rope.interleaved = random_.between(0, 1);
    }
    // A layer's cache, which may have heads that nobody uses.
    int cache(int kv_heads, int dim) {
        p_.caches.push_back({kv_heads + random_.pick({0, 0, 2}), dim, dim});
        return static_cast<int>(p_.caches.size()) - 1;
    }
    // Queries, keys and values side by side in one buffer, as models' come, or apart. Layers differ
    // in heads, sizes, scales and windows.
    void attention() {
        const int dim = dims_[random_.below(dims_.size())], kv_heads = random_.between(1, 3);
        const int heads = kv_heads * random_.between(1, 4);
        const View in = norm(x_);
        View q = linear(in, heads * dim), k = linear(in, kv_heads * dim), v = k;
        if (random_.chance(50)) {
            const View all = linear(in, (heads + 2 * kv_heads) * dim);
            q = {all.buffer, all.offset, heads * dim};
            k = {all.buffer, q.offset + q.width, kv_heads * dim};
            v = {all.buffer, k.offset + k.width, kv_heads * dim};
        }
        if (random_.chance(50)) head_norm(q, heads), head_norm(k, kv_heads);
        rope(q, heads), rope(k, kv_heads);
        Op& append = op(OpKind::kv_append, k, {});
        append.b = v;
        append.cache = cache(kv_heads, dim);
        append.kv_heads = kv_heads;
        append.k_dim = append.v_dim = dim;
        const int own = append.cache;
        const View attended = buffer(heads * dim);
        Op& attend = op(OpKind::attention, q, attended);
        attend.cache = own;
        attend.heads = heads;
        attend.k_dim = attend.v_dim = dim;
        attend.scale = 0.1f + random_.number() / 20;
        attend.window = random_.pick({0, 0, 1, 30, 64, 100});
        for (int head = 0; head < heads; head++)
            attend.kv_map.push_back(random_.chance(80) ? head * kv_heads / heads
                                                       : random_.between(0, kv_heads - 1));
        add_product(attended, dim);
    }
    void gated() {
        const int columns = random_.chance(20) ? random_.between(100, 300) : size();
        const View in = norm(x_), gate = linear(in, columns), up = linear(in, columns);
        const View out = buffer(columns);
        Op& gated = op(OpKind::gated_mul, gate, out);
        gated.b = up;
        gated.function = random_.between(0, kGateFunctions - 1);
        gated.limit = 3.0f, gated.alpha = 1.5f;
        add_product(out, random_.pick({64, 64, 32, 5, 256}));
    }
    // Every head's matrix, all of one shape and format.
    void head_linear(View in, View out, int heads, int inputs, int outputs) {
        Op& product = op(OpKind::head_linear, in, out);
        const int unit = random_.pick({inputs, inputs, 32});
        const Format of_all = format(inputs, unit);
        for (int head = 0; head < heads; head++)
            product.matrices.push_back(matrix(of_all, inputs, unit, outputs));
    }
    void latent() {
        const int heads = random_.between(1, 9), rank = random_.between(1, 70);
        const int plain = random_.between(1, 40), values = random_.between(1, 40);
        const int table = static_cast<int>(random_.below(p_.frequencies.size()));
        const auto turned =
            static_cast<int>(2 * p_.frequencies[static_cast<size_t>(table)].values.size());
        const int width = rank + turned;
        const View in = norm(x_), q = linear(in, heads * (plain + turned)), kv = linear(in, width);
        rope(kv, 1, table);
        Op& append = op(OpKind::latent_append, kv, {});
        p_.caches.push_back({1, width, rank, true});
        const int own = append.cache = static_cast<int>(p_.caches.size()) - 1;
        append.k_dim = width;
        const View absorbed = buffer(heads * width);
        head_linear(q, absorbed, heads, plain, rank);
        Op& rope = op(OpKind::rope, q, absorbed);
        rope.heads = heads;
        rope.dim = plain + turned;
        rope.offset = plain;
        rope.to_dim = width;
        rope.to_offset = rank;
        rope.rotary = turned;
        rope.table = table;
        rope.interleaved = random_.between(0, 1);
        const View summed = buffer(heads * rank), out = buffer(heads * values);
        Op& attend = op(OpKind::latent_attention, absorbed, summed);
        attend.cache = own;
        attend.heads = heads;
        attend.k_dim = width;
        attend.v_dim = rank;
        attend.scale = 0.1f + random_.number() / 20;
        head_linear(summed, out, heads, rank, values);
        add_product(out, values);
    }
    // A gated delta net: queries, keys and values side by side, then what gates them.
    void delta() {
        const int key_heads = random_.between(1, 3), heads = key_heads * random_.between(1, 3);
        const int k_dim = random_.between(1, 40),
                  v_dim = random_.pick({random_.between(1, 40), 70});
        const int width = 2 * key_heads * k_dim + heads * v_dim, kernel = random_.between(1, 5);
        const View in = norm(x_), all = linear(in, width + 2 * heads), mixed = buffer(width);
        Op& conv = op(OpKind::short_conv, {all.buffer, all.offset, width}, mixed);
        conv.kernel = kernel;
        conv.weights = kernel * width;
        conv.vector = vector(conv.weights);
        conv.state = state({0, 0, 0, width, kernel - 1});
        Op& normed = op(OpKind::l2_norm, mixed, mixed);
        normed.a.width = normed.out.width = 2 * key_heads * k_dim;
        normed.groups = 2 * key_heads;
        normed.dim = k_dim;
        normed.eps = 1e-6f;
        normed.factor = random_.pick({1.0f, 0.125f});
        const View gates = buffer(2 * heads), out = buffer(heads * v_dim);
        Op& gate = op(OpKind::delta_gates, {all.buffer, all.offset + width, 2 * heads}, gates);
        gate.heads = heads;
        gate.vector = vector(2 * heads);
        Op& rule = op(OpKind::delta_rule, mixed, out);
        rule.b = gates;
        rule.heads = heads;
        rule.key_heads = key_heads;
        rule.k_dim = k_dim;
        rule.v_dim = v_dim;
        rule.state = state({heads, k_dim, v_dim, heads * (k_dim + v_dim + 2), 0});
        head_norm(out, heads);
        add_product(out, v_dim);
    }
    int state(StateShape shape) {
        p_.states.push_back(shape);
        return static_cast<int>(p_.states.size()) - 1;
    }
    // Experts of any width, now and then of none here, beside a shared one that may be wider.
    void mixture() {
        const int each = random_.between(1, 4), groups = random_.between(1, 3);
        const int experts = each * groups;
        const View in = norm(x_);
        const int shared = random_.between(0, 2);
        const View logits = linear(in, experts + (shared == 2));
        Op& route = op(OpKind::route, logits, {});
        route.experts = experts;
        route.groups = groups;
        route.top_groups = random_.between(1, groups);
        route.top_k = random_.between(1, each * route.top_groups);
        route.scoring = random_.between(0, 2);
        route.normalise = random_.between(0, 1);
        route.factor = random_.pick({1.0f, 2.5f});
        route.group_score = each > 1 ? random_.between(0, 1) : 0;
        route.shared = shared;
        const int top_k = route.top_k, slots = top_k + (shared > 0);
        const auto at = p_.ops.size() - 1;
        const View routes = buffer(2 * slots);
        p_.ops[at].out = routes;
        if (random_.chance(40)) p_.ops[at].vector = vector(experts);
        const int width =
            random_.chance(10) ? 0 : random_.pick({16, 50, 256, random_.between(1, 100)});
        const int least = width == 0 ? 1 : 0;
        const int shared_width = shared > 0 ? random_.between(least, 130) : 0;
        if (width == 0 && shared_width == 0) return;
        const int all = top_k * width + shared_width;
        const bool biased = random_.chance(30);
        const View wide = buffer(2 * all), out = buffer(all), grid = buffer(p_.hidden_size, true);
        experts_product(OpKind::expert_linear, in, routes, wide, experts, top_k, 2 * width,
                        2 * shared_width, biased);
        Op& gate = op(OpKind::expert_mul, wide, out);
        gate.top_k = top_k;
        gate.width = width;
        gate.shared_width = shared_width;
        gate.function = random_.between(0, kGateFunctions - 1);
        gate.limit = 3.0f, gate.alpha = 1.5f;
        experts_product(OpKind::expert_grid, out, routes, grid, experts, top_k, width, shared_width,
                        biased);
        Op& reduce = op(OpKind::all_reduce_add, grid, x_);
        reduce.b = x_;
        reduce.group = reduce.contributors = {0};
    }
    void experts_product(OpKind kind, View in, View routes, View out, int experts, int top_k,
                         int width, int shared_width, bool biased) {
        const bool grid = kind == OpKind::expert_grid, last = routes.width / 2 > top_k;
        // Grids have units of 64, or of 256 where all widths have.
        const bool wide = width % 256 == 0 && shared_width % 256 == 0;
        const int unit = !grid ? in.width : wide ? 256 : 64;
        const int inputs_of_all = !grid                             ? in.width
                                  : width % 32 || shared_width % 32 ? 1
                                  : wide                            ? 256
                                                                    : 32;
        const Format of_all = format(inputs_of_all, unit);
        Op& product = op(kind, in, out);
        product.b = routes;
        product.top_k = top_k;
        product.width = width;
        product.shared_width = shared_width;
        for (int expert = 0; expert < experts + last; expert++) {
            const int own = expert < experts ? width : shared_width;
            const int inputs = grid ? own : in.width, outputs = grid ? p_.hidden_size : own;
            product.biases += biased ? outputs : 0;
            product.matrices.push_back(own == 0 ? -1 : matrix(of_all, inputs, unit, outputs));
        }
        if (biased) product.vector = vector(product.biases);
    }
    // A norm that may be much wider than the model, before a product.
    void aside() {
        const View wide = linear(x_, random_.between(1, 600));
        const View out = linear(norm(wide), p_.hidden_size);
        add_product(out, 64);
    }
    void logits() {
        const View taken = buffer(p_.hidden_size, false, true);
        op(OpKind::take_rows, x_, taken);
        const View own = linear(norm(taken, true), p_.vocab_size, true);
        View all = buffer(p_.vocab_size, false, true);
        all.offset = 0;
        op(OpKind::gather_logits, own, all).owners = {{0, 0, p_.vocab_size}};
    }

    Random& random_;
    MadeProgram& made_;
    Program& p_;
    View x_;
    int layers_ = 1;
    std::array<int, 2> dims_{};  // of a head
};

int odd_number(Random& random, int own) {
    const auto bits = static_cast<unsigned>(own);
    return random.pick<int>({0, 1, -1, INT_MAX, INT_MIN, 1 << 28, 1 << 20,
                             static_cast<int>(bits + 1), static_cast<int>(bits - 1),
                             static_cast<int>(bits * 2), static_cast<int>(bits + 16),
                             random.between(0, 300)});
}

// Changes one of an operation's attributes, the one whose turn it is.
struct SpoilAttribute {
    Random& random;
    int turn;

    template <typename T>
    void operator()(const char*, AttributeType, T& value) {
        if (turn-- == 0) spoil(value);
    }
    void spoil(int& value) { value = odd_number(random, value); }
    void spoil(uint32_t& tag) { tag = static_cast<uint32_t>(random.between(0, 100)); }
    void spoil(float& value) {
        value = random.pick({0.0f, -1.0f, 1e30f, -1e-30f, __builtin_nanf(""), __builtin_inff()});
    }
    void spoil(std::vector<int>& values) {
        if (values.empty() || random.chance(30)) return values.push_back(random.between(-1, 2));
        spoil(values[random.below(values.size())]);
    }
    void spoil(std::vector<std::array<int, 3>>& values) {
        if (!values.empty()) spoil(values[0][random.below(3)]);
    }
};

void spoil_op(Random& random, Op& op) {
    int* const numbers[] = {&op.a.buffer,  &op.a.offset, &op.a.width,    &op.b.buffer,
                            &op.b.offset,  &op.b.width,  &op.out.buffer, &op.out.offset,
                            &op.out.width, &op.matrix,   &op.vector};
    if (random.chance(60)) {
        int& number = *numbers[random.below(std::size(numbers))];
        number = odd_number(random, number);
    } else if (random.chance(10)) {
        op.kind = static_cast<OpKind>(random.between(-1, kKinds));
    } else {
        visit_attributes(op.kind, static_cast<Attributes&>(op),
                         SpoilAttribute{random, random.between(0, 6)});
    }
}

void spoil_frequencies(Random& random, Frequencies& table) {
    if (random.chance(20)) table.factor = random.pick({0.0, -1.0, 1e300, __builtin_nan("")});
    if (table.values.empty() || random.chance(20)) return table.values.resize(random.below(100));
    table.values[0] = random.pick({1e300, -1e300, 1e9, __builtin_nan(""), 0.0});
}

void spoil_state(Random& random, StateShape& state) {
    int* const sizes[] = {&state.heads, &state.k_dim, &state.v_dim, &state.row, &state.history};
    int& size = *sizes[random.below(std::size(sizes))];
    size = odd_number(random, size);
}

void spoil_cache(Random& random, CacheShape& cache) {
    if (random.chance(10)) cache.latent ^= true;
    int* const sizes[] = {&cache.kv_heads, &cache.k_dim, &cache.v_dim};
    int& size = *sizes[random.below(std::size(sizes))];
    size = odd_number(random, size);
}

}  // namespace

MadeProgram make_program(Random& random) {
    MadeProgram made;
    Maker(random, made).make();
    return made;
}

void spoil(Random& random, MadeProgram& made) {
    Program& p = made.program;
    ExecutorOptions& options = made.options;
    int* const sizes[] = {&p.node,
                          &p.num_nodes,
                          &p.hidden_size,
                          &p.vocab_size,
                          &options.max_rows,
                          &options.num_pages,
                          &options.max_slots_pages,
                          &options.num_states,
                          &options.max_drafted,
                          &options.threads,
                          &options.overlap_rows};
    switch (random.between(0, 8)) {
        case 0: {
            int& value = *sizes[random.below(std::size(sizes))];
            value = odd_number(random, value);
            return;
        }
        case 1: {
            Buffer& buffer = p.buffers[random.below(p.buffers.size())];
            if (random.chance(50))
                buffer.width = odd_number(random, buffer.width);
            else
                (random.chance(50) ? buffer.grid : buffer.logit_rows) ^= true;
            return;
        }
        case 2: {
            auto& vector = p.vectors[random.below(p.vectors.size())];
            if (random.chance(50)) vector.size = odd_number(random, vector.size);
            if (random.chance(50)) vector.values.resize(random.below(300));
            return;
        }
        case 3:
            return spoil_frequencies(random, p.frequencies[random.below(p.frequencies.size())]);
        case 4:
            std::swap(p.ops[random.below(p.ops.size())], p.ops[random.below(p.ops.size())]);
            return;
        case 5:
            if (!p.states.empty() && random.chance(40))
                return spoil_state(random, p.states[random.below(p.states.size())]);
            if (p.caches.empty()) return;
            return spoil_cache(random, p.caches[random.below(p.caches.size())]);
        default:
            return spoil_op(random, p.ops[random.below(p.ops.size())]);
    }
}

}  // namespace bw::fuzz
