/*
 * What a program can tell userdma: which bytes of its memory are lent to peers, for what, and until when (`userdma
 * check`), and faults that it wants in a test of its own. The header needs no library: the functions are those of
 * userdma's preload library, and without it they do nothing and cost a few nanoseconds. For C and C++, with GCC or
 * Clang. Code that is compiled with -fno-pic, which is not the default, does not find the functions.
 *
 * Once bytes of a registered region have been lent, each access of a peer to bytes of the region that are not lent is
 * an error (`not-lent`). A byte is lent while any lend of it lasts that allows the access: lends may overlap, and a
 * part of lent memory may be lent again. Lends are those of the process that registered the memory: a child of fork has
 * none.
 */
#ifndef USERDMA_H
#define USERDMA_H

#include <errno.h>
#include <stdint.h>

#include "userdma_check.h"

/* What peers may do. */
enum { USERDMA_READ = 1, USERDMA_WRITE = 2, USERDMA_ATOMIC = 4 };

#ifdef __cplusplus
extern "C" {
#endif

uint64_t userdma_check_lend(const void *memory, size_t length, int rights, const char *label, uint32_t qp_num,
                            uint32_t milliseconds) __attribute__((weak));
int userdma_check_take_back(uint64_t lend) __attribute__((weak));
int userdma_check_expect_finished(const void *memory, size_t length) __attribute__((weak));
void userdma_check_unchecked(const void *memory, size_t length) __attribute__((weak));
void userdma_check_name(const void *memory, size_t length, const char *name) __attribute__((weak));
long userdma_check_finding(unsigned number, char *id, size_t id_size, char *text, size_t size) __attribute__((weak));
int userdma_inject(const char *rules, char *why, size_t size) __attribute__((weak));
int userdma_inject_clear(int id) __attribute__((weak));
long userdma_inject_count(int id) __attribute__((weak));
int userdma_inject_wait(int id, uint64_t count, int milliseconds) __attribute__((weak));
int userdma_inject_version(void) __attribute__((weak));

/*
 * Lends `length` bytes of this process's memory from now on, before a peer is told of them. `rights`: USERDMA_READ,
 * USERDMA_WRITE and USERDMA_ATOMIC; with USERDMA_READ alone the owner promises not to change the bytes either. `label`:
 * says in findings for what, such as "request 17", at most 55 bytes; may be NULL. Returns the lend for
 * userdma_take_back; 0: nobody checks.
 */
static inline uint64_t userdma_lend(const void *memory, size_t length, int rights, const char *label)
{
    return userdma_check_lend ? userdma_check_lend(memory, length, rights, label, 0, 0) : 0;
}

/*
 * The same, only for the peer of the queue pair `qp_num` of this process (0: for any), and only for this many
 * milliseconds (0: until it is taken back).
 */
static inline uint64_t userdma_lend_to(const void *memory, size_t length, int rights, const char *label, uint32_t qp_num,
                                       uint32_t milliseconds)
{
    return userdma_check_lend ? userdma_check_lend(memory, length, rights, label, qp_num, milliseconds) : 0;
}

/* Ends a lend; 0 does nothing. Returns 0, or EINVAL if this process has not made it. */
static inline int userdma_take_back(uint64_t lend)
{
    return userdma_check_take_back ? userdma_check_take_back(lend) : 0;
}

/*
 * The program relies on it that no request of a peer to these bytes is outstanding, and none of its own that has them
 * as its buffer. Returns 0, or how many are, which is a finding too (`taken-back-early`).
 */
static inline int userdma_expect_finished(const void *memory, size_t length)
{
    return userdma_check_expect_finished ? userdma_check_expect_finished(memory, length) : 0;
}

/*
 * Peers may access these bytes at any time, such as a flag or a ring within lent memory. Valid until the process ends.
 */
static inline void userdma_unchecked(const void *memory, size_t length)
{
    if (userdma_check_unchecked)
        userdma_check_unchecked(memory, length);
}

/* The name of these bytes in findings, at most 55 bytes. The latest name counts. */
static inline void userdma_name(const void *memory, size_t length, const char *name)
{
    if (userdma_check_name)
        userdma_check_name(memory, length, name);
}

/*
 * Whether the program runs with userdma (`userdma run`, `userdma check`, or the environment of a daemon) of this
 * header's version: 1 or 0. If it is 0, faults cannot be set, and a test that needs them skips.
 */
static inline int userdma_present(void)
{
    return userdma_inject_version && userdma_inject_version() == 1;
}

/*
 * How many findings `userdma check` has so far of the daemon's programs: warnings, errors and notes of what has ended
 * or was done before. If there are more than `number`, `id` and `text` get the finding with this number, from 0: its
 * name, and a sentence that begins with its severity (error, warning or note). Returns -ENOSYS if nobody checks.
 */
static inline long userdma_finding(unsigned number, char *id, size_t id_size, char *text, size_t size)
{
    return userdma_check_finding ? userdma_check_finding(number, id, id_size, text, size) : -ENOSYS;
}

/*
 * Sets fault rules, the text of `--fault` such as "drop=1%" or "call=mr.create,errno=ENOMEM,nth=3;link=50ms", until
 * userdma_fault_clear or the end of the process. Rules for packets act on packets of this process's queue pairs, and
 * with "qp=" on those to one of them; rules for calls, posts, completions, events and pages act on this process. What
 * touches a whole device, such as "link=", needs a device that no other process has open, or a daemon with
 * `--allow-faults`. Requests that were posted before may meet the rules too. Returns an id above 0, or -errno: ENOSYS
 * without userdma, EINVAL and EPERM (`why` says it), E2BIG for more than 4,087 bytes, ENOMEM for too many rules. `why`:
 * gets a sentence of at most `size` - 1 bytes; empty if there is none. May be NULL with size 0.
 */
static inline int userdma_fault_why(const char *rules, char *why, size_t size)
{
    return userdma_inject ? userdma_inject(rules, why, size) : -ENOSYS;
}

static inline int userdma_fault(const char *rules)
{
    return userdma_fault_why(rules, NULL, 0);
}

/*
 * Ends rules; links that they have taken down are up again. Returns 0, or -ENOENT: this process has no rules with this
 * id.
 */
static inline int userdma_fault_clear(int id)
{
    return userdma_inject_clear ? userdma_inject_clear(id) : -ENOSYS;
}

/* How often the rules have acted so far; each effect on a packet counts. -ENOENT: there is no such id. */
static inline long userdma_fault_count(int id)
{
    return userdma_inject_count ? userdma_inject_count(id) : -ENOSYS;
}

/*
 * Waits until the rules have acted `n` times, at most so many milliseconds (below 0: without limit). Returns 0, or
 * -ETIMEDOUT, or -ENOENT: there is no such id, or another thread has cleared it.
 */
static inline int userdma_fault_wait(int id, uint64_t n, int milliseconds)
{
    return userdma_inject_wait ? userdma_inject_wait(id, n, milliseconds) : -ENOSYS;
}

#ifdef __cplusplus
}

#include <stdexcept>
#include <string>

namespace userdma {

/* Fault rules that end with their scope. */
class Fault {
public:
    /* Throws std::runtime_error with a sentence if the rules are refused. */
    explicit Fault(const std::string &rules)
    {
        char why[512] = "";
        id_ = userdma_fault_why(rules.c_str(), why, sizeof why);
        if (id_ < 0)
            throw std::runtime_error(*why ? why : "userdma: the fault is refused, errno " + std::to_string(-id_));
    }
    ~Fault() { clear(); }
    Fault(Fault &&other) noexcept : id_(other.id_) { other.id_ = 0; }
    Fault(const Fault &) = delete;
    Fault &operator=(const Fault &) = delete;
    Fault &operator=(Fault &&) = delete;

    void clear()
    {
        if (id_ > 0)
            userdma_fault_clear(id_);
        id_ = 0;
    }
    long count() const { return userdma_fault_count(id_); }
    /* Whether the rules have acted `n` times within so many milliseconds. */
    bool wait(uint64_t n, int milliseconds) const { return userdma_fault_wait(id_, n, milliseconds) == 0; }

private:
    int id_;
};

} // namespace userdma
#endif

#endif
