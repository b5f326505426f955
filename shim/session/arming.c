/*
 * ibv_req_notify_cq without a call: the program stores the arming into a word of the context's memory file
 * (docs/decisions/events-without-calls.md). The device looks at the word when it has written a completion. So an arming
 * never wakes a sleeping daemon, which writes none.
 *
 * A full fence is needed between our store and the program's next look at the CQ. The daemon stores the CQ's producer
 * index before it looks at the word. So one of the two finds what the other has stored.
 *
 * The arming is forwarded as a call if the CQ has no word, and while the daemon must see every call.
 */
#define _GNU_SOURCE
#include "parts.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/* RDMA_VERBS_IOCTL */
#define VERBS_IOCTL 0xc0181b01u
/* IB_USER_VERBS_CMD_REQ_NOTIFY_CQ */
#define REQ_NOTIFY_CQ 23
/* UVERBS_ATTR_CORE_IN and UVERBS_ATTR_WRITE_CMD, of method 0 (UVERBS_METHOD_INVOKE_WRITE) of object 0. */
#define CORE_IN 0
#define WRITE_CMD 2

/* ib_uverbs_req_notify_cq */
struct notify {
    uint32_t cq_handle;
    uint32_t solicited_only;
};

/* ib_uverbs_attr: values up to 8 bytes are inline. */
struct attribute {
    uint16_t id;
    uint16_t length;
    uint16_t flags;
    uint16_t reserved;
    union {
        uint64_t data;
        struct notify notify;
    };
};

/* ib_uverbs_ioctl_hdr with the two attributes of this command. */
struct notify_ioctl {
    uint16_t length;
    uint16_t object;
    uint16_t method;
    uint16_t attribute_count;
    uint64_t reserved1;
    uint32_t driver;
    uint32_t reserved2;
    struct attribute attributes[2];
};
_Static_assert(sizeof(struct notify_ioctl) == 56, "layout of the ABI");

/* ib_uverbs_cmd_hdr and its command. */
struct notify_write {
    uint32_t command;
    uint16_t in_words;
    uint16_t out_words;
    struct notify notify;
};
_Static_assert(sizeof(struct notify_write) == 16, "layout of the ABI");

#define WORDS_BYTES (USERDMA_ARM_WORDS_ENTRIES * sizeof(uint32_t))

/* The mapped words of contexts by descriptor; a sparse table. NULL before the first arming. */
static uint32_t **table;

static uint32_t **create_table(void)
{
    void *memory = REAL(mmap64)(NULL, FD_TABLE_SIZE * sizeof *table, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    madvise(memory, FD_TABLE_SIZE * sizeof *table, MADV_NOHUGEPAGE);
    uint32_t **expected = NULL;
    if (__atomic_compare_exchange_n(&table, &expected, memory, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        return memory;
    munmap(memory, FD_TABLE_SIZE * sizeof *table);
    return expected;
}

/* Maps the words of a context. NULL if that fails, and for a vfork child, whose descriptors are not the table's. */
static uint32_t *map_words(uint32_t **slot, int fd)
{
    const int saved = errno;
    void *memory = shim_is_other_process()
                       ? MAP_FAILED
                       : REAL(mmap64)(NULL, WORDS_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                                      (off64_t)USERDMA_ARM_WORDS_OFFSET);
    errno = saved;
    if (memory == MAP_FAILED)
        return NULL;
    uint32_t *expected = NULL;
    if (__atomic_compare_exchange_n(slot, &expected, memory, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        return memory;
    munmap(memory, WORDS_BYTES);
    return expected;
}

static uint32_t *words_of(int fd)
{
    uint32_t **slots = __atomic_load_n(&table, __ATOMIC_ACQUIRE);
    if (UNLIKELY(!slots) && !(slots = create_table()))
        return NULL;
    uint32_t *words = __atomic_load_n(slots + fd, __ATOMIC_ACQUIRE);
    return LIKELY(words != NULL) ? words : map_words(slots + fd, fd);
}

void arming_forget(int fd)
{
    uint32_t **slots = __atomic_load_n(&table, __ATOMIC_ACQUIRE);
    uint32_t *words = slots ? __atomic_exchange_n(slots + fd, NULL, __ATOMIC_ACQ_REL) : NULL;
    if (words)
        munmap(words, WORDS_BYTES);
}

static bool arm(int fd, struct notify notify)
{
    const volatile uint32_t *page = __atomic_load_n(&session_parked_page, __ATOMIC_ACQUIRE);
    if (!page || page[USERDMA_PARKED_PAGE_CALLS] != 0 || shim_is_traced || recorder_is_on ||
        notify.cq_handle >= USERDMA_ARM_WORDS_ENTRIES)
        return false;
    uint32_t *words = words_of(fd);
    if (!words)
        return false;
    uint32_t *word = words + notify.cq_handle, seen = __atomic_load_n(word, __ATOMIC_RELAXED), next;
    do {
        if (seen < USERDMA_ARM_WORD_IDLE || seen > USERDMA_ARM_WORD_NEXT)
            return false;
        next = notify.solicited_only && seen != USERDMA_ARM_WORD_NEXT ? USERDMA_ARM_WORD_SOLICITED
                                                                      : USERDMA_ARM_WORD_NEXT;
    } while (!__atomic_compare_exchange_n(word, &seen, next, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return true;
}

/*
 * Whether a command of `size` bytes lies in the stack frames of our callers, as libibverbs' commands do. A command at
 * any other address is the daemon's to read: it may not be mapped.
 */
#define IS_ON_STACK(address, size)                                                                                     \
    ((uintptr_t)(address) - (uintptr_t)__builtin_frame_address(0) < MIN_STACK - (size))
#define MIN_STACK 2048

bool arming_by_ioctl(int fd, uint32_t request, uintptr_t argument)
{
    struct notify_ioctl command;
    if (request != VERBS_IOCTL || !IS_ON_STACK(argument, sizeof command))
        return false;
    memcpy(&command, (const void *)argument, sizeof command);
    const struct attribute *first = command.attributes, *second = first + 1;
    if (command.length != sizeof command || command.object != 0 || command.method != 0 ||
        command.attribute_count != 2 || command.reserved1 != 0 || command.reserved2 != 0 || first->id != WRITE_CMD ||
        first->data != REQ_NOTIFY_CQ || second->id != CORE_IN || second->length != sizeof(struct notify))
        return false;
    return arm(fd, second->notify);
}

bool arming_by_write(int fd, const void *buffer, size_t count)
{
    struct notify_write command;
    if (count != sizeof command || !IS_ON_STACK(buffer, count))
        return false;
    memcpy(&command, buffer, sizeof command);
    return command.command == REQ_NOTIFY_CQ && command.in_words == sizeof command / 4 && command.out_words == 0 &&
           arm(fd, command.notify);
}
