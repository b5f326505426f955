/*
 * What sanitizers say of devices, for `userdma check`. ThreadSanitizer's reports come by syslog(3), beside standard
 * error: `check` sets its option log_to_syslog. In a report it has locks that the session's thread may want, so reports
 * are kept until the next call (shim/check/reports.c), or the end that a sanitizer makes.
 */
#define _GNU_SOURCE
#include "../session/requests.h"
#include "requests.h"

#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <syslog.h>

/* Further reports are only the sanitizer's. */
#define MAX_KEPT 8

enum state { FREE, TAKEN, COMPLETE };
static struct {
    uint32_t state;
    uint32_t length;
    /* The message. Too long for the union of `struct request`. */
    struct userdma_header header;
    struct userdma_told body;
} *kept;

static uint32_t take_kept(void)
{
    for (uint32_t i = 0; kept && i < MAX_KEPT; i++) {
        uint32_t state = FREE;
        if (__atomic_compare_exchange_n(&kept[i].state, &state, TAKEN, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
            kept[i].length = 0;
            kept[i].header = (struct userdma_header){.type = USERDMA_TOLD, .fd = -1};
            return i;
        }
    }
    return MAX_KEPT;
}

static void append(uint32_t place, const char *text, bool has_end)
{
    const size_t room = sizeof kept->body.told - 2 - kept[place].length;
    const size_t length = strnlen(text, room);
    char *const end = kept[place].body.told + kept[place].length;
    memcpy(end, text, length);
    if (has_end)
        end[length] = '\n';
    end[length + has_end] = 0;
    kept[place].length += (uint32_t)length + has_end;
}

static void set_state(uint32_t place, enum state state)
{
    __atomic_store_n(&kept[place].state, state, __ATOMIC_RELEASE);
}

static void tell_daemon(uint32_t place)
{
    struct shim_guard guard;
    struct reply reply;
    if (!session_enter(&guard))
        return;
    if (session_is_connected() &&
        session_exchange((struct request *)&kept[place].header, sizeof kept->body, &reply, &guard) == 0)
        reply_close_all(&reply);
    session_leave(&guard);
}

void told_send_kept(void)
{
    for (uint32_t i = 0; kept && i < MAX_KEPT; i++) {
        uint32_t state = COMPLETE;
        if (LIKELY(!__atomic_compare_exchange_n(&kept[i].state, &state, TAKEN, false, __ATOMIC_ACQUIRE,
                                                __ATOMIC_RELAXED)))
            continue;
        const int saved = errno;
        tell_daemon(i);
        set_state(i, FREE);
        errno = saved;
    }
}

void told_say(const char *sentence, bool is_later)
{
    const uint32_t place = take_kept();
    if (place == MAX_KEPT)
        return;
    append(place, sentence, false);
    kept[place].header.stack = is_later ? 0 : stack_here();
    set_state(place, COMPLETE);
    if (!is_later)
        told_send_kept();
}

/* Nanoseconds for which a death waits for a thread that tells the daemon. */
#define DEATH_NS 1000000000u

/* A sanitizer ends the program. */
static void at_death(void)
{
    const uint64_t begin = shim_nanoseconds();
    peers_end();
    told_send_kept();
    for (uint32_t i = 0; i < MAX_KEPT; i++)
        while (__atomic_load_n(&kept[i].state, __ATOMIC_ACQUIRE) != FREE && shim_nanoseconds() - begin < DEATH_NS)
            sched_yield();
}

void told_detect(void)
{
    void *const memory = REAL(mmap64)(NULL, MAX_KEPT * sizeof *kept, PROT_READ | PROT_WRITE,
                                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    void (*const set_death_callback)(void (*)(void)) = sanitizer_symbol("__sanitizer_set_death_callback");
    if (memory == MAP_FAILED)
        return;
    kept = memory;
    if (set_death_callback)
        set_death_callback(at_death);
}

/* ---- ThreadSanitizer's lines: of one report at a time ---- */

/* A call in the runtime's function that logs them, which has two, and is not longer. */
static uintptr_t logger;
#define LOGGER_BYTES 1024
static uint32_t place = MAX_KEPT;

static bool begins(const char *line, const char *text)
{
    return strncmp(line, text, strlen(text)) == 0;
}

static void take_line(const char *line)
{
    if (begins(line, "WARNING: ThreadSanitizer")) {
        if (place == MAX_KEPT)
            place = take_kept();
        else
            kept[place].length = 0;
    }
    if (place == MAX_KEPT)
        return;
    if (!begins(line, "SUMMARY: ")) {
        append(place, line, true);
        return;
    }
    /* Only of devices: fibers with such names. */
    set_state(place, strstr(kept[place].body.told, "'device") ? COMPLETE : FREE);
    place = MAX_KEPT;
}

EXPORT void syslog(int priority, const char *format, ...)
{
    const uintptr_t caller = (uintptr_t)__builtin_return_address(0);
    va_list arguments;
    va_start(arguments, format);
    if (UNLIKELY(kept != NULL) && priority == LOG_INFO && strcmp(format, "%s") == 0) {
        va_list copy;
        va_copy(copy, arguments);
        const char *const line = va_arg(copy, const char *);
        va_end(copy);
        if (!logger && (begins(line, "======") || begins(line, "WARNING: ThreadSanitizer")))
            logger = caller;
        if (logger && caller + LOGGER_BYTES > logger && caller < logger + LOGGER_BYTES) {
            take_line(line);
            va_end(arguments);
            return;
        }
    }
    vsyslog(priority, format, arguments);
    va_end(arguments);
}
