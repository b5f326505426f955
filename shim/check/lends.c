/*
 * The functions behind shim/include/userdma.h, by which a program tells `userdma check` which bytes peers may access,
 * and from when until when. Each is an entry of the ring of lends (src/spec/lends.ts), without a lock, so that a signal
 * handler may declare too. The daemon reads the ring before it judges an access: what was declared before a message was
 * posted is known when the peer's request comes.
 */
#define _GNU_SOURCE
#include "requests.h"

#include <errno.h>
#include <sched.h>
#include <string.h>

EXPORT uint64_t userdma_check_lend(const void *memory, size_t length, int rights, const char *label, uint32_t qp_num,
                                   uint32_t milliseconds);
EXPORT int userdma_check_take_back(uint64_t lend);
EXPORT int userdma_check_expect_finished(const void *memory, size_t length);
EXPORT void userdma_check_unchecked(const void *memory, size_t length);
EXPORT void userdma_check_name(const void *memory, size_t length, const char *name);

#define ALL_RIGHTS (USERDMA_LEND_RIGHT_READ | USERDMA_LEND_RIGHT_WRITE | USERDMA_LEND_RIGHT_ATOMIC)

/*
 * Times that a thread asks the daemon to read a full ring. Then the thread overwrites an entry, and the daemon says so.
 */
#define MAX_ASKED 1000

/* The number of the last lend, and that of the last one of the parent. */
static uint64_t last_id, inherited_id;

static int64_t ask(uint32_t stack, const void *memory, size_t length)
{
    const struct userdma_range range = {.address = (uintptr_t)memory, .length = length};
    return message_send(-1, USERDMA_LENDS, stack, &range, sizeof range, true);
}

static char *own_ring(void)
{
    if (!shim_is_ready())
        shim_init();
    return waiting_lend_ring();
}

static void note(char *ring, struct userdma_lend *entry, const char *label)
{
    struct userdma_lend_ring *head = (struct userdma_lend_ring *)ring;
    entry->stack = stack_here();
    if (label)
        strncpy(entry->label, label, sizeof entry->label - 1);
    const uint64_t index = __atomic_fetch_add(&head->head, 1, __ATOMIC_ACQ_REL);
    for (unsigned i = 0; i < MAX_ASKED; i++) {
        if (LIKELY(index - __atomic_load_n(&head->tail, __ATOMIC_ACQUIRE) < USERDMA_LEND_RING_ENTRIES))
            break;
        ask(0, NULL, 0);
        sched_yield();
    }
    struct userdma_lend *slot =
        (struct userdma_lend *)(ring + USERDMA_LEND_RING_FIRST_ENTRY) + index % USERDMA_LEND_RING_ENTRIES;
    entry->time = shim_nanoseconds();
    memcpy((char *)slot + sizeof slot->sequence, (char *)entry + sizeof entry->sequence,
           sizeof *slot - sizeof slot->sequence);
    __atomic_store_n(&slot->sequence, index + 1, __ATOMIC_RELEASE);
}

uint64_t userdma_check_lend(const void *memory, size_t length, int rights, const char *label, uint32_t qp_num,
                            uint32_t milliseconds)
{
    const int saved = errno;
    char *ring = own_ring();
    uint64_t id = 0;
    if (ring && length > 0) {
        id = __atomic_add_fetch(&last_id, 1, __ATOMIC_RELAXED);
        struct userdma_lend entry = {.start = (uintptr_t)memory,
                                     .length = length,
                                     .id = id,
                                     .kind = USERDMA_LEND_LEND,
                                     .rights = (uint32_t)rights & ALL_RIGHTS,
                                     .qpn = qp_num,
                                     .milliseconds = milliseconds};
        if (entry.rights == USERDMA_LEND_RIGHT_READ)
            entry.is_hashed = hashes_of_lend((uintptr_t)memory, length, &entry.hash);
        note(ring, &entry, label);
    }
    errno = saved;
    return id;
}

int userdma_check_take_back(uint64_t lend)
{
    const int saved = errno;
    char *ring = own_ring();
    if (!ring || lend == 0)
        return 0;
    if (lend <= __atomic_load_n(&inherited_id, __ATOMIC_RELAXED) || lend > __atomic_load_n(&last_id, __ATOMIC_RELAXED))
        return EINVAL;
    struct userdma_lend entry = {.id = lend, .kind = USERDMA_LEND_TAKE_BACK};
    note(ring, &entry, NULL);
    errno = saved;
    return 0;
}

int userdma_check_expect_finished(const void *memory, size_t length)
{
    const int saved = errno;
    const int64_t unfinished = own_ring() && length > 0 ? ask(stack_here(), memory, length) : 0;
    errno = saved;
    return unfinished > 0 ? (int)unfinished : 0;
}

/* An entry about bytes, without an id. */
static void note_bytes(uint32_t kind, const void *memory, size_t length, const char *label)
{
    const int saved = errno;
    char *ring = own_ring();
    if (ring && length > 0) {
        struct userdma_lend entry = {.start = (uintptr_t)memory, .length = length, .kind = kind};
        note(ring, &entry, label);
    }
    errno = saved;
}

void userdma_check_unchecked(const void *memory, size_t length)
{
    note_bytes(USERDMA_LEND_UNCHECKED, memory, length, NULL);
}

void userdma_check_name(const void *memory, size_t length, const char *name)
{
    note_bytes(USERDMA_LEND_NAME, memory, length, name);
}

IN_CHILD void lends_in_child(void)
{
    inherited_id = last_id;
}
