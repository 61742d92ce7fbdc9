// Meshes of two and three nodes one of whose links does something to what it carries: the answer is
// right, or a node says what is wrong; in time, and with the buffers of before.
#include <sys/socket.h>

#include <memory>
#include <stdexcept>
#include <thread>

#include "exchange/exchange.h"
#include "fuzz/altering_transport.h"
#include "fuzz/mesh_model.h"
#include "fuzz/run.h"
#include "kernels/isa.h"

namespace bw::fuzz {

namespace {

constexpr int kMaxRows = 16;
constexpr double kStallSeconds = 0.2, kPatientSeconds = 20;
constexpr size_t kMostBuffered = size_t{2} << 20;

bool is_harmless(Alteration how) { return how == Alteration::none || how == Alteration::pieces; }
bool is_flip(Alteration how) {
    return how == Alteration::flip_header || how == Alteration::flip_payload;
}

using Steps = std::vector<std::vector<float>>;  // the embeddings of each step's rows

// How a mesh is put together; the same for its right answer, but for the altered link.
struct Setting {
    ExecutorOptions options;
    bool emulated = false, sealed = false;  // the altered link
    Cipher cipher = Cipher::aes_256_gcm;
    uint64_t seals_a_key = 1;
    int sender = 0, receiver = 1;
    double stall_seconds = kPatientSeconds;
};

// A node with what it ended with.
struct Node {
    std::shared_ptr<Exchange> exchange;
    Weights weights;
    std::unique_ptr<Executor> executor;
    std::vector<float> logits;
    std::string failure;
    size_t buffered = 0;
};

std::string name(int node) { return "node " + std::to_string(node); }

void run_node(Node& node, const Steps& steps, int hidden_size) {
    try {
        if (node.exchange->node() != 0) {
            while (node.executor->follow(-1) == 1) {
            }
        } else {
            for (const auto& embeddings : steps) {
                const size_t rows = embeddings.size() / static_cast<size_t>(hidden_size);
                const std::vector<int32_t> zeros(rows, 0), ones(rows, 1);
                StepRows step;
                step.rows = static_cast<int>(rows);
                step.slots = step.pages = 1;
                step.tokens = step.slot_of = step.positions = step.tables = zeros.data();
                step.wants = ones.data();
                node.executor->run(step, embeddings.data());
                const size_t stride = node.executor->logits_stride();
                const auto width = static_cast<size_t>(node.executor->program().vocab_size);
                for (size_t r = 0; r < rows; r++) {
                    const float* row = node.executor->logits() + r * stride;
                    node.logits.insert(node.logits.end(), row, row + width);
                }
            }
            node.exchange->leave();
        }
    } catch (const StepError& error) {
        node.failure = error.what();
        if (node.failure.empty()) node.failure = "(no reason)";
    }
    node.buffered = node.exchange->buffer_bytes();
    // Its links close, as those of a process that ends.
    node.executor.reset();
    node.exchange.reset();
}

std::unique_ptr<Transport> socket_transport(int descriptor) {
    return tcp_transport(descriptor, false);
}

// Links two nodes: the altered pair over a socket, others over sockets or memory.
void link(Exchange& a, Exchange& b, const Setting& setting, Altered* altered, Random& random) {
    const bool chosen = altered && a.node() + b.node() == setting.sender + setting.receiver &&
                        (a.node() == setting.sender || b.node() == setting.sender);
    if (!chosen && random.chance(50)) {
        auto [left, right] = local_transport();
        a.add_link(b.node(), std::move(left));
        b.add_link(a.node(), std::move(right));
        return;
    }
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) throw std::runtime_error("no sockets");
    std::unique_ptr<Transport> left = socket_transport(ends[0]), right = socket_transport(ends[1]);
    if (chosen) {
        auto& sending = a.node() == setting.sender ? left : right;
        sending = altering_transport(std::move(sending), *altered, random);
        if (setting.sealed) {
            uint8_t keys[2][kKeyBytes];
            for (auto& key : keys)
                for (uint8_t& byte : key) byte = static_cast<uint8_t>(random.bits());
            left = sealed_transport(std::move(left),
                                    {setting.cipher, keys[0], keys[1], setting.seals_a_key});
            right = sealed_transport(std::move(right),
                                     {setting.cipher, keys[1], keys[0], setting.seals_a_key});
        }
        if (setting.emulated) {
            left = emulated_transport(std::move(left), 50e-6, 1e9);
            right = emulated_transport(std::move(right), 50e-6, 1e9);
        }
    }
    a.add_link(b.node(), std::move(left));
    b.add_link(a.node(), std::move(right));
}

std::vector<Node> run_mesh(const MeshModel& model, const Setting& setting, const Steps& steps,
                           Altered* altered, Random& random) {
    std::vector<Node> nodes(static_cast<size_t>(model.nodes));
    std::vector<std::string> names;
    for (int i = 0; i < model.nodes; i++) names.push_back(name(i));
    for (int i = 0; i < model.nodes; i++)
        nodes[static_cast<size_t>(i)].exchange =
            std::make_shared<Exchange>(i, names, 1, setting.stall_seconds, false);
    for (int high = 1; high < model.nodes; high++)
        for (int low = 0; low < high; low++)
            link(*nodes[static_cast<size_t>(low)].exchange,
                 *nodes[static_cast<size_t>(high)].exchange, setting, altered, random);
    for (int i = 0; i < model.nodes; i++) {
        Node& node = nodes[static_cast<size_t>(i)];
        node.executor =
            std::make_unique<Executor>(model.part(i, node.weights), setting.options, node.exchange);
    }
    std::vector<std::thread> threads;
    for (Node& node : nodes)
        threads.emplace_back([&] { run_node(node, steps, model.hidden_size); });
    for (std::thread& thread : threads) thread.join();
    return nodes;
}

// What the mesh must answer: exactly, what a node alone does.
std::vector<float> right_answer(const MeshModel& model, const Setting& setting, const Steps& steps,
                                Random& random) {
    if (setting.options.wire != WireFormat::exact) {
        std::vector<Node> nodes = run_mesh(model, setting, steps, nullptr, random);
        for (const Node& node : nodes)
            if (!node.failure.empty()) throw Wrong{"without any alteration: " + node.failure};
        return nodes[0].logits;
    }
    Node alone;
    alone.exchange =
        std::make_shared<Exchange>(0, std::vector<std::string>{"node 0"}, 1, 1.0, false);
    alone.executor =
        std::make_unique<Executor>(model.whole(alone.weights), setting.options, nullptr);
    run_node(alone, steps, model.hidden_size);
    if (!alone.failure.empty()) throw Wrong{"alone: " + alone.failure};
    return alone.logits;
}

std::string judge(const std::vector<Node>& nodes, const std::vector<float>& right,
                  const Altered& altered, const Setting& setting) {
    std::string first;
    bool named = false;
    const std::string damage =
        "the link from " + name(setting.sender) +
        (setting.sealed ? " to " + name(setting.receiver) + " was tampered with or is damaged"
                        : " delivers damaged data to " + name(setting.receiver));
    for (const Node& node : nodes) {
        if (node.buffered > kMostBuffered) throw Wrong{"a buffer has grown"};
        if (first.empty()) first = node.failure;
        named |= node.failure.rfind(damage, 0) == 0;
    }
    const bool answered = nodes[0].failure.empty();
    if (answered && nodes[0].logits != right) throw Wrong{"a wrong answer without an error"};
    if (is_harmless(altered.how) && !first.empty()) throw Wrong{"unaltered, but: " + first};
    if (is_flip(altered.how) && altered.done && altered.work && !named)
        throw Wrong{"bits were flipped, but: " + (first.empty() ? "no error" : first)};
    if (!altered.done && !is_harmless(altered.how)) {
        // On a busy machine a node may get no processor for longer than the bound.
        const bool stalled = first.find(" made no progress for ") != std::string::npos;
        if (!first.empty() && !(stalled && setting.stall_seconds == kStallSeconds))
            throw Wrong{"nothing was altered yet, but: " + first};
        return "accepted: was not reached";
    }
    if (first.empty()) return "accepted: right";
    return (answered ? "right, and then: " : "error: ") + kind_of_error(first);
}

std::string run(Random& random, const Kernels& kernels) {
    const MeshModel model(random);
    Setting setting;
    ExecutorOptions& options = setting.options;
    options.max_rows = kMaxRows;
    options.num_pages = options.max_slots_pages = 1;
    options.spin = false;
    options.fetch_ahead = 0;
    options.kernels = &kernels;
    options.wire =
        random.pick({WireFormat::exact, WireFormat::exact, WireFormat::bf16, WireFormat::q8});
    if (random.chance(50)) options.hop_bytes = 0;
    options.overlap_rows = random.pick({1000, 5, 2});
    options.threads = random.chance(10) ? 2 : 1;
    Steps steps(random.below(3) + 1);
    for (auto& embeddings : steps)
        for (int i = random.between(1, kMaxRows) * model.hidden_size; i > 0; i--)
            embeddings.push_back(random.number());
    const std::vector<float> right = right_answer(model, setting, steps, random);

    Altered altered;
    setting.emulated = random.chance(15);
    setting.sealed = !setting.emulated && random.chance(40);
    if (setting.sealed) {
        if (!find_libcrypto()) throw Wrong{"there is no libcrypto"};
        if (random.chance(30)) setting.cipher = Cipher::chacha20_poly1305;
        setting.seals_a_key = random.pick<uint64_t>({1, 2, 5, 64, uint64_t{1} << 22});
        altered.records = true;
    }
    const int first = setting.emulated ? kAlterations - kStreamAlterations : 0;
    altered.how = static_cast<Alteration>(random.between(first, kAlterations - 1));
    if (setting.emulated && random.chance(10)) altered.how = Alteration::none;
    altered.control = random.chance(15);
    altered.at = random.below(random.pick<size_t>({1, 3, 8}));
    if (altered.how >= Alteration::flip_byte)
        altered.at = random.below(random.pick<size_t>({100, 1000, 5000}));
    setting.sender = random.between(0, model.nodes - 1);
    setting.receiver = (setting.sender + random.between(1, model.nodes - 1)) % model.nodes;
    setting.stall_seconds =
        is_harmless(altered.how) || is_flip(altered.how) ? kPatientSeconds : kStallSeconds;
    return judge(run_mesh(model, setting, steps, &altered, random), right, altered, setting);
}

}  // namespace

Input altered_transcripts(const Plan&) {
    return [kernels = usable_kernels().front()](Random& random) { return run(random, *kernels); };
}

}  // namespace bw::fuzz
