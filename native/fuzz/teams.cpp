// Teams of threads whose members throw, somewhere between their barriers: what the first threw
// reaches the caller, nobody waits for ever, and the team works on.
#include <new>
#include <stdexcept>
#include <vector>

#include "core/threads.h"
#include "fuzz/run.h"

namespace bw::fuzz {

namespace {

struct Foreign {};

// What members do: `barriers` barriers, and a member's throw before one of them, or none (-1).
struct Work {
    int barriers;
    std::vector<int> throws_at, how;
};

Work make_work(Random& random, int members) {
    Work work{random.between(0, 6), {}, {}};
    for (int member = 0; member < members; member++) {
        work.throws_at.push_back(random.chance(20) ? random.between(0, work.barriers) : -1);
        work.how.push_back(random.between(0, 2));
    }
    return work;
}

void throw_as(int how) {
    if (how == 0) throw std::runtime_error("a member failed");
    if (how == 1) throw std::bad_alloc();
    throw Foreign{};
}

// What run() threw: nothing (-1), or what a member was to throw.
int run(ThreadTeam& team, const Work& work, std::vector<int>& reached) {
    try {
        team.run([&](int member) {
            const auto own = static_cast<size_t>(member);
            for (int i = 0; i <= work.barriers; i++) {
                reached[own] = i;
                if (work.throws_at[own] == i) throw_as(work.how[own]);
                if (i < work.barriers) team.barrier();
            }
        });
        return -1;
    } catch (const std::runtime_error&) {
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    } catch (const Foreign&) {
        return 2;
    }
}

void check(const Work& work, int thrown, const std::vector<int>& reached) {
    int first = work.barriers + 1;
    for (int at : work.throws_at)
        if (at >= 0 && at < first) first = at;
    if (first > work.barriers) {
        if (thrown != -1) throw Wrong{"a team whose members throw nothing throws"};
        for (int at : reached)
            if (at != work.barriers) throw Wrong{"a member did not do its part"};
        return;
    }
    // Who throws at the same place races; later ones never get there.
    bool known = false;
    for (size_t member = 0; member < reached.size(); member++) {
        known |= work.throws_at[member] == first && work.how[member] == thrown;
        if (reached[member] != first) throw Wrong{"a member passed a barrier that broke"};
    }
    if (!known) throw Wrong{"what a member threw did not reach the caller"};
}

}  // namespace

Input failing_teams(const Plan&) {
    return [](Random& random) -> std::string {
        const int members = random.between(1, 5);
        ThreadTeam team(members, {}, random.chance(50));
        bool failed = false;
        for (int turn = random.between(1, 4); turn > 0; turn--) {
            const Work work = make_work(random, members);
            std::vector<int> reached(static_cast<size_t>(members), -1);
            const int thrown = run(team, work, reached);
            check(work, thrown, reached);
            failed |= thrown >= 0;
        }
        return failed ? "thrown" : "done";
    };
}

}  // namespace bw::fuzz
