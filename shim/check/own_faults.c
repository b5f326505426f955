/*
 * The functions behind userdma_fault of shim/include/userdma.h, by which a program sets fault rules for itself.
 */
#define _GNU_SOURCE
#include "../session/requests.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

EXPORT int userdma_inject(const char *rules, char *why, size_t size);
EXPORT int userdma_inject_clear(int id);
EXPORT long userdma_inject_count(int id);
EXPORT int userdma_inject_wait(int id, uint64_t count, int milliseconds);
EXPORT int userdma_inject_version(void);

/* Of the functions: userdma.h compares it with its own. */
#define VERSION 1

/*
 * Between two looks at a count, nanoseconds: as many at first, and at most. By a clock that skips: this part of the
 * wait so far.
 */
#define FIRST_NAP 200000
#define LONGEST_NAP 5000000
#define PART_OF_WAIT 64
#define SECOND 1000000000

/* The message FAULT. Too long for the union of `struct request`. */
struct setting {
    struct userdma_header header;
    struct userdma_fault_rules rules;
};

static bool is_ready(void)
{
    if (!shim_is_ready())
        shim_init();
    return shim_is_active;
}

int userdma_inject(const char *rules, char *why, size_t size)
{
    const int saved = errno;
    struct setting setting = {.header = {.type = USERDMA_FAULT, .fd = -1}};
    struct shim_guard guard;
    int64_t answer = -EIO;
    if (size > 0)
        *why = '\0';
    if (!is_ready())
        return -ENOSYS;
    if (strlen(rules) >= sizeof setting.rules.rules)
        return -E2BIG;
    memcpy(setting.rules.rules, rules, strlen(rules));
    if (!session_enter(&guard))
        return -EIO;
    struct reply reply;
    if (session_ensure_connected(&guard, false) &&
        session_exchange((struct request *)&setting, sizeof setting.rules, &reply, &guard) == 0) {
        answer = reply.message.fault.ret;
        if (answer < 0 && size > 0)
            snprintf(why, size, "%.*s", (int)sizeof reply.message.fault.why, reply.message.fault.why);
        reply_close_all(&reply);
    }
    session_leave(&guard);
    errno = saved;
    return (int)answer;
}

static int64_t ask(uint32_t type, int id)
{
    const struct userdma_fault_id body = {.fault_id = (uint32_t)id};
    return is_ready() && id > 0 ? message_send(-1, type, 0, &body, sizeof body, true) : -ENOENT;
}

int userdma_inject_clear(int id)
{
    return (int)ask(USERDMA_FAULT_CLEAR, id);
}

long userdma_inject_count(int id)
{
    return (long)ask(USERDMA_FAULT_COUNT, id);
}

int userdma_inject_wait(int id, uint64_t count, int milliseconds)
{
    const int saved = errno;
    const uint64_t begin = shim_nanoseconds();
    const bool skips = getenv(USERDMA_ENV_CLOCK) != NULL;
    uint64_t nap = FIRST_NAP;
    int64_t counted;
    while ((counted = ask(USERDMA_FAULT_COUNT, id)) >= 0 && (uint64_t)counted < count) {
        const uint64_t waited = shim_nanoseconds() - begin;
        if (milliseconds >= 0 && waited >= (uint64_t)milliseconds * 1000000)
            return -ETIMEDOUT;
        nanosleep(&(struct timespec){.tv_sec = (time_t)(nap / SECOND), .tv_nsec = (long)(nap % SECOND)}, NULL);
        const uint64_t longest = skips && waited / PART_OF_WAIT > LONGEST_NAP ? waited / PART_OF_WAIT : LONGEST_NAP;
        nap = nap * 2 < longest ? nap * 2 : longest;
    }
    errno = saved;
    return counted < 0 ? (int)counted : 0;
}

int userdma_inject_version(void)
{
    struct shim_guard guard;
    bool is_connected = false;
    const int saved = errno;
    if (is_ready() && session_enter(&guard)) {
        is_connected = session_ensure_connected(&guard, false);
        session_leave(&guard);
    }
    errno = saved;
    return is_connected ? VERSION : 0;
}
