/*
 * The call slot: requests and replies in memory that the daemon shares (src/daemon/session/call-slot-layout.ts,
 * docs/decisions/call-slot.md). With the session's lock held.
 *
 * The slot gets copies of what a request's pointers name only if that lies on the live stack of the calling thread,
 * where libibverbs builds its commands: other addresses may be bad, and the daemon reads them as before. So does it
 * write results that are not on the stack.
 */
#define _GNU_SOURCE
#include "connection.h"

#include <errno.h>
#include <linux/ioctl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include "call_layout.h"

/* Of the C library's loader: the upper end of the main thread's stack. */
extern void *__libc_stack_end;
/* Lower, the main thread's stack does not reach without leave of the user. Deeper in others, nothing is copied. */
#define STACK_BYTES ((uintptr_t)8 << 20)

static volatile uint32_t *word(size_t offset)
{
    return (volatile uint32_t *)(session.slot + offset);
}

/*
 * Not memcpy(3), which sanitizers replace: they would complain of the bytes between variables of a stack. The barrier
 * keeps the compiler from calling memcpy.
 */
static void copy(void *to, const void *from, size_t length)
{
    unsigned char *target = to;
    const unsigned char *source = from;
    for (; length >= sizeof(uint64_t); length -= sizeof(uint64_t)) {
        uint64_t eight;
        __builtin_memcpy(&eight, source, sizeof eight);
        __builtin_memcpy(target, &eight, sizeof eight);
        target += sizeof eight;
        source += sizeof eight;
        __asm__ volatile("" ::: "memory");
    }
    for (; length > 0; length--) {
        *target++ = *source++;
        __asm__ volatile("" ::: "memory");
    }
}

void slot_take(int file)
{
    void *memory = mmap(NULL, USERDMA_SLOT_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED)
        return;
    /* A child has a session of its own. */
    if (madvise(memory, USERDMA_SLOT_BYTES, MADV_DONTFORK) != 0)
        munmap(memory, USERDMA_SLOT_BYTES);
    else
        session.slot = memory;
}

void slot_unmap(char **slot)
{
    if (*slot)
        munmap(*slot, USERDMA_SLOT_BYTES);
    *slot = NULL;
}

/* ---- the stack ---- */

/* Found to be readable. */
static __thread uintptr_t stack_bottom __attribute__((tls_model("initial-exec")));
static __thread uintptr_t stack_top __attribute__((tls_model("initial-exec")));
/* Lower, this stack does not reach. */
static __thread uintptr_t stack_limit __attribute__((tls_model("initial-exec")));

/*
 * Not pthread_getattr_np, which calls malloc: a signal handler that has interrupted malloc may call. The C library has
 * a thread's data at the top of its stack.
 */
static void find_stack(void)
{
    if (session_thread_id == shim_pid) {
        stack_top = (uintptr_t)__libc_stack_end;
        stack_bottom = stack_limit = stack_top - STACK_BYTES;
        return;
    }
    stack_top = (uintptr_t)pthread_self();
    stack_limit = stack_top - STACK_BYTES;
    stack_bottom = stack_top & -(uintptr_t)sysconf(_SC_PAGESIZE);
}

#define PROBED_PAGES 32

/* Extends `stack_bottom` to `frame` if all pages between them are readable, so that no guard separates two stacks. */
static bool extend_stack(uintptr_t frame)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    while (stack_bottom > frame) {
        char bytes[PROBED_PAGES];
        struct iovec local = {.iov_base = bytes}, remote[PROBED_PAGES];
        for (uintptr_t at = stack_bottom; at > frame && local.iov_len < PROBED_PAGES; local.iov_len++) {
            at -= page;
            remote[local.iov_len] = (struct iovec){.iov_base = (void *)at, .iov_len = 1};
        }
        const ssize_t readable = process_vm_readv(shim_pid, &local, 1, remote, local.iov_len, 0);
        if (readable > 0)
            stack_bottom -= (uintptr_t)readable * page;
        if (readable != (ssize_t)local.iov_len) {
            stack_limit = stack_bottom;
            return false;
        }
    }
    return true;
}

/* From the caller's frame up. False on another stack, as a signal's or a coroutine's. */
static bool live_stack(uintptr_t frame, uintptr_t *low, uintptr_t *high)
{
    if (UNLIKELY(stack_top == 0))
        find_stack();
    *low = frame;
    *high = stack_top;
    if (frame >= stack_top || frame < stack_limit)
        return false;
    return LIKELY(frame >= stack_bottom) || extend_stack(frame);
}

/* ---- a request ---- */

/* FIRST_READ in src/uapi/linux/ioctl-message.ts. */
#define FIRST_BYTES 256

struct copies {
    uintptr_t low, high;
    uint32_t count;
    uint64_t bytes;
};

static bool is_live(const struct copies *copies, uint64_t address, uint64_t length)
{
    return address >= copies->low && address <= copies->high && length <= copies->high - address;
}

static bool add(struct copies *copies, uint64_t address, uint64_t length)
{
    if (length == 0 || copies->count == USERDMA_SLOT_MAX_RANGES || !is_live(copies, address, length) ||
        length > USERDMA_SLOT_INPUT_BYTES - copies->bytes)
        return false;
    struct userdma_range *range = (struct userdma_range *)(session.slot + USERDMA_SLOT_RANGES) + copies->count++;
    *range = (struct userdma_range){.address = address, .length = length};
    copy(session.slot + USERDMA_SLOT_INPUT + copies->bytes, (const void *)(uintptr_t)address, length);
    copies->bytes += length;
    return true;
}

/* What the attributes of a message of Linux's verbs point to. The message is on the stack. */
static void add_verbs_attributes(struct copies *copies, uint64_t message, uint64_t length)
{
    struct verbs_attribute attribute;
    for (uint64_t offset = sizeof(struct verbs_header); offset + sizeof attribute <= length; offset += sizeof attribute) {
        copy(&attribute, (const void *)(uintptr_t)(message + offset), sizeof attribute);
        if (attribute.length > sizeof attribute.data)
            add(copies, attribute.data, attribute.length);
    }
}

static void add_object_attributes(struct copies *copies, uint64_t message, uint64_t length)
{
    struct object_attribute attribute;
    struct span target;
    for (uint64_t offset = OBJECT_HEADER_BYTES; offset + sizeof attribute <= length;
         offset += (attribute.length + 7u) & ~7u) {
        copy(&attribute, (const void *)(uintptr_t)(message + offset), sizeof attribute);
        if (attribute.length < sizeof attribute || offset + sizeof attribute + sizeof target > length)
            return;
        if (!(attribute.flags & INDIRECT) || attribute.length != sizeof attribute + sizeof target)
            continue;
        copy(&target, (const void *)(uintptr_t)(message + offset + sizeof attribute), sizeof target);
        add(copies, target.address, target.length);
    }
}

static void add_argument(struct copies *copies, uint32_t request, uint64_t argument)
{
    const bool is_verbs = _IOC_TYPE(request) == LINUX_MAGIC;
    uint64_t length = _IOC_SIZE(request);
    if (is_verbs || _IOC_TYPE(request) == OBJECT_MAGIC) {
        uint16_t whole;
        if (!is_live(copies, argument, sizeof whole))
            return;
        copy(&whole, (const void *)(uintptr_t)argument, sizeof whole);
        length = whole;
    }
    /* The daemon first reads so much, as most messages have. */
    const uint64_t first = length < FIRST_BYTES && is_live(copies, argument, FIRST_BYTES) ? FIRST_BYTES : length;
    if (!add(copies, argument, first))
        return;
    if (is_verbs)
        add_verbs_attributes(copies, argument, length);
    else if (_IOC_TYPE(request) == OBJECT_MAGIC)
        add_object_attributes(copies, argument, length);
}

static void add_copies(struct copies *copies, const struct request *request)
{
    if (request->header.type == USERDMA_IOCTL)
        add_argument(copies, request->ioctl.request, request->ioctl.argument);
    else if (request->header.type == USERDMA_WRITE)
        add(copies, request->write.buffer, request->write.length);
}

bool slot_ask(const struct request *request)
{
    if (!session.slot || request->header.size > USERDMA_SLOT_REQUEST_BYTES)
        return false;
    struct copies copies = {0};
    if (live_stack((uintptr_t)__builtin_frame_address(0), &copies.low, &copies.high))
        add_copies(&copies, request);
    else
        copies.high = copies.low;
    memcpy(session.slot + USERDMA_SLOT_REQUEST, request, request->header.size);
    memcpy(session.slot + USERDMA_SLOT_STACK_LOW, &(uint64_t){copies.low}, sizeof(uint64_t));
    memcpy(session.slot + USERDMA_SLOT_STACK_HIGH, &(uint64_t){copies.high}, sizeof(uint64_t));
    *word(USERDMA_SLOT_RANGE_COUNT) = copies.count;
    *word(USERDMA_SLOT_ANSWER) = USERDMA_ANSWER_NONE;
    __atomic_store_n(word(USERDMA_SLOT_ASKED), request->header.serial, __ATOMIC_SEQ_CST);
    return true;
}

bool slot_needs_call(void)
{
    return __atomic_load_n(word(USERDMA_SLOT_POLLED), __ATOMIC_SEQ_CST) == 0;
}

/* ---- an answer ---- */

uint32_t slot_answer(void)
{
    return __atomic_load_n(word(USERDMA_SLOT_ANSWER), __ATOMIC_ACQUIRE);
}

bool slot_await_socket(void)
{
    uint32_t none = USERDMA_ANSWER_NONE;
    return __atomic_compare_exchange_n(word(USERDMA_SLOT_ANSWER), &none, USERDMA_ANSWER_AWAITED, false, __ATOMIC_SEQ_CST,
                                       __ATOMIC_ACQUIRE) ||
           none == USERDMA_ANSWER_SOCKET;
}

bool slot_take_outputs(const char *slot)
{
    struct copies copies = {0};
    uint32_t count;
    memcpy(&copies.low, slot + USERDMA_SLOT_STACK_LOW, sizeof copies.low);
    memcpy(&copies.high, slot + USERDMA_SLOT_STACK_HIGH, sizeof copies.high);
    memcpy(&count, slot + USERDMA_SLOT_OUTPUT_COUNT, sizeof count);
    const struct userdma_range *ranges = (const struct userdma_range *)(slot + USERDMA_SLOT_OUTPUTS);
    uint64_t from = 0;
    for (uint32_t i = 0; i < count && i < USERDMA_SLOT_MAX_RANGES; i++) {
        const struct userdma_range range = ranges[i];
        if (!is_live(&copies, range.address, range.length) || range.length > USERDMA_SLOT_OUTPUT_BYTES - from)
            return false;
        copy((void *)(uintptr_t)range.address, slot + USERDMA_SLOT_OUTPUT + from, range.length);
        from += range.length;
    }
    return true;
}

ssize_t slot_read(struct reply *reply)
{
    const char *message = session.slot + USERDMA_SLOT_REPLY;
    struct userdma_header header;
    memcpy(&header, message, sizeof header);
    if (header.size > USERDMA_SLOT_REPLY_BYTES || header.size > sizeof reply->message)
        return 0;
    memcpy(&reply->message, message, header.size);
    return slot_take_outputs(session.slot) ? (ssize_t)header.size : 0;
}
