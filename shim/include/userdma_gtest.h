/*
 * GoogleTest with userdma: findings of `userdma check` fail the test that caused them.
 *
 *     int main(int argc, char **argv)
 *     {
 *         testing::InitGoogleTest(&argc, argv);
 *         testing::UnitTest::GetInstance()->listeners().Append(new userdma::Findings);
 *         return RUN_ALL_TESTS();
 *     }
 *
 *     TEST(Reader, SurvivesAStaleKey)
 *     {
 *         USERDMA_REQUIRED();                    // skips without userdma
 *         userdma::Expect stale("stale-rkey");   // must be found, and does not fail the test
 *         ...
 *     }
 *
 * Run it with `userdma check --private --fail-on never -- ./my-test`.
 */
#ifndef USERDMA_GTEST_H
#define USERDMA_GTEST_H

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "userdma.h"

#define USERDMA_REQUIRED()                                                                                             \
    do {                                                                                                               \
        if (!userdma_present())                                                                                        \
            GTEST_SKIP() << "not under userdma";                                                                       \
    } while (0)

namespace userdma {

inline std::set<std::string> &expected_findings()
{
    static std::set<std::string> names;
    return names;
}

/* A finding that the test must cause. */
class Expect {
public:
    explicit Expect(const std::string &name) { expected_findings().insert(name); }
};

/* Errors fail a test; with `warnings` true warnings too. */
class Findings : public testing::EmptyTestEventListener {
public:
    explicit Findings(bool warnings = false) : warnings_(warnings) {}

    void OnTestStart(const testing::TestInfo &) override
    {
        expected_findings().clear();
        take([](const std::string &, const std::string &) {});
    }

    void OnTestEnd(const testing::TestInfo &) override
    {
        std::set<std::string> missing = expected_findings();
        take([&](const std::string &name, const std::string &text) {
            missing.erase(name);
            const bool is_failure = text.compare(0, 6, "error ") == 0 || (warnings_ && text.compare(0, 8, "warning ") == 0);
            if (is_failure && expected_findings().count(name) == 0)
                ADD_FAILURE() << "userdma check: " << text;
        });
        if (userdma_finding(0, nullptr, 0, nullptr, 0) < 0)
            return;
        for (const std::string &name : missing)
            ADD_FAILURE() << "userdma check: " << name << " was expected, and not found";
    }

private:
    template <class Handle> void take(const Handle &handle)
    {
        char name[64], text[1100];
        while (userdma_finding(next_, name, sizeof name, text, sizeof text) > (long)next_) {
            next_++;
            handle(name, text);
        }
    }

    bool warnings_;
    unsigned next_ = 0;
};

} // namespace userdma

#endif
