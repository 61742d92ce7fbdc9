#include "executor/fetch_ahead.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/clock.h"
#include "core/float_mode.h"
#include "executor/span.h"

namespace bw {

namespace {

constexpr size_t kAhead = 4096;
constexpr size_t kLeast = size_t{16} << 20;  // bytes of weights, below which caches hold them
constexpr size_t kTrial = size_t{24} << 20;
constexpr int kRounds = 5;
constexpr double kWorth = 0.98;  // of the time without hints

// Some panels of a matrix.
struct Piece {
    const Matrix* matrix;
    Span panels;
    size_t bytes;
};

std::vector<Piece> pieces_of(const Program& program) {
    std::vector<Piece> pieces;
    for (const Matrix& matrix : program.matrices) {
        const size_t each = panel_bytes(matrix.format, matrix.layout);
        const int most = static_cast<int>(std::max<size_t>(1, kTrial / std::max<size_t>(1, each)));
        for (int from = 0; from < matrix.num_panels(); from += most) {
            const int to = std::min(from + most, matrix.num_panels());
            pieces.push_back({&matrix, {from, to}, each * static_cast<size_t>(to - from)});
        }
    }
    return pieces;
}

// One row of zeros through all panels: what comes out does not matter.
class Trial {
  public:
    Trial(const Program& program, const Kernels& kernels, ThreadTeam& team)
        : pieces_(pieces_of(program)), kernels_(kernels), team_(team) {
        size_t inputs = 0, outputs = 0, activations = 0;
        for (const Matrix& matrix : program.matrices) {
            inputs = std::max(inputs, static_cast<size_t>(matrix.layout.k));
            outputs = std::max(outputs, static_cast<size_t>(matrix.num_panels()) * kPanel);
            activations = std::max(activations, activation_bytes(matrix.format, matrix.layout));
        }
        x_.resize(inputs);
        y_.resize(outputs);
        activations_.resize(activations);
    }

    // Seconds for each byte of the next pieces; every trial has others, so that none finds its
    // weights in a cache because the one before had them.
    double run(size_t ahead) {
        size_t bytes = 0;
        const double start = now();
        while (bytes < kTrial) {
            const Piece& piece = pieces_[next_++ % pieces_.size()];
            team_.run([&](int member) {
                const FloatMode mode;
                read(piece, member, ahead);
            });
            bytes += piece.bytes;
        }
        return (now() - start) / static_cast<double>(bytes);
    }

  private:
    void read(const Piece& piece, int member, size_t ahead) {
        const Matrix& matrix = *piece.matrix;
        const Span own = part(piece.panels.to - piece.panels.from, member, team_.members());
        if (own.from == own.to) return;
        const size_t each = panel_bytes(matrix.format, matrix.layout);
        const int first = piece.panels.from + own.from;
        ProductArgs args{};
        args.panels = matrix.panels + each * static_cast<size_t>(first);
        args.panel_stride = each;
        args.ahead = ahead;
        args.layout = matrix.layout;
        args.num_panels = own.to - own.from;
        args.outputs = args.num_panels * kPanel;
        args.rows = 1;
        args.x = x_.data();
        args.activations = activations_.data();
        args.y = y_.data() + static_cast<size_t>(first) * kPanel;
        kernels_.linear[static_cast<size_t>(matrix.format)](args);
    }

    const std::vector<Piece> pieces_;
    const Kernels& kernels_;
    ThreadTeam& team_;
    std::vector<float> x_, y_;
    std::vector<uint8_t> activations_;
    size_t next_ = 0;
};

double median(std::vector<double>& values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

}  // namespace

size_t find_fetch_ahead(const Program& program, const Kernels& kernels, ThreadTeam& team) {
    size_t bytes = 0;
    for (const Matrix& matrix : program.matrices) bytes += matrix.bytes();
    if (bytes < kLeast) return 0;
    Trial trial(program, kernels, team);
    std::vector<double> with, without;
    for (int round = 0; round < kRounds; round++) {
        without.push_back(trial.run(0));
        with.push_back(trial.run(kAhead));
    }
    return median(with) < kWorth * median(without) ? kAhead : 0;
}

}  // namespace bw
