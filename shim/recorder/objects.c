/*
 * Destroyed objects, by address. Their memory is kept as by AddressSanitizer: the last MAX_GONE of at most MAX_BYTES
 * together. shim/frees/frees.c asks before each free() of a thread whether the block is that of an object which the
 * thread destroys.
 */
#define _GNU_SOURCE
#include "locks.h"
#include "objects.h"
#include "orders.h"
#include "refusals.h"
#include "verbs.h"

#include <errno.h>
#include <infiniband/verbs.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Maximum destroyed objects whose memory is kept, and its bytes. */
#define MAX_GONE 4096
#define MAX_BYTES (8u << 20)
/* Maximum threads that destroy objects at the same time. Further ones destroy them as without us. */
#define MAX_DESTROYING 64
/* Maximum reports about one object, and about all. */
#define MAX_REPORTS_OF_OBJECT 64
#define MAX_REPORTS 1000
/* A thread gives up after this many yields: a signal handler may have left the holder of the lock by siglongjmp. */
#define MAX_YIELDS 10000

/* A bucket of the table is a line of the processor's cache. An object that finds its bucket full is not kept. */
#define BUCKETS 2048
#define BUCKET_OBJECTS 8

struct gone {
    const void *object;
    void *block;
    size_t bytes;
    /* When it was destroyed, and where. */
    uint64_t time;
    uint32_t stack;
    uint32_t kind;
    uint32_t number;
    uint32_t reports;
};

uint32_t objects_gone;

/* A ring, the oldest at `oldest`. */
static struct gone gone[MAX_GONE];
static uint32_t oldest, gone_count;
static size_t gone_bytes;
static uint32_t reports;
/* Addresses of the objects in the ring. Read without the lock. */
static struct {
    const void *objects[BUCKET_OBJECTS];
} table[BUCKETS] __attribute__((aligned(64)));

/* Objects that threads destroy now. NULL: a free entry. */
static const void *destroying[MAX_DESTROYING];
/* Calls that destroy an object now. Read by free(). */
EXPORT extern uint32_t userdma_destroying;
uint32_t userdma_destroying;
/*
 * Whether the block of an object was ever held. If not, as with an allocator in the program, an object that a thread
 * still destroys may be freed already, and another thread may have created one at its address.
 */
static bool sees_frees;

TLS struct last_call calls_last;

/* The calls of this thread, the innermost first. */
static TLS struct object_call *current;

static uint32_t locked;

static bool lock(void)
{
    return lock_within(&locked, MAX_YIELDS + 1);
}

static void unlock(void)
{
    lock_release(&locked);
}

uint64_t objects_nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- the table ---- */

static const void **bucket_of(const void *object)
{
    return table[((uintptr_t)object >> 4) * 0x9e3779b97f4a7c15u >> (64 - 11)].objects;
}
_Static_assert(BUCKETS == 1 << 11, "the hash gives an index of the table");

/* The place of an address in its bucket, NULL for a free place; NULL if there is none. */
static const void **place_of(const void *object, const void *wanted)
{
    const void **bucket = bucket_of(object);
    for (unsigned i = 0; i < BUCKET_OBJECTS; i++)
        if (__atomic_load_n(&bucket[i], __ATOMIC_RELAXED) == wanted)
            return &bucket[i];
    return NULL;
}

/* With the lock held. */
static struct gone *find(const void *object)
{
    for (uint32_t i = gone_count; i > 0; i--) {
        struct gone *at = &gone[(oldest + i - 1) % MAX_GONE];
        if (at->object == object)
            return at;
    }
    return NULL;
}

/* With the lock held: removes the oldest object. Returns its block, which the caller frees without the lock. */
static void *remove_oldest(void)
{
    struct gone *first = &gone[oldest];
    const void **place = place_of(first->object, first->object);
    if (place)
        __atomic_store_n(place, NULL, __ATOMIC_RELAXED);
    oldest = (oldest + 1) % MAX_GONE;
    gone_count--;
    gone_bytes -= first->bytes;
    __atomic_fetch_sub(&objects_gone, 1, __ATOMIC_RELAXED);
    return first->block;
}

/* Keeps the block of a destroyed object. Returns the block if it is not kept; else NULL. */
static void *keep(const struct object_call *call, uint32_t stack)
{
    void *block = call->block;
    verbs_gone(call->object.kind, (void *)(uintptr_t)call->object.object,
               call->bytes - (size_t)((const char *)call->object.object - (const char *)block));
    while (lock()) {
        void *freed = NULL;
        const bool must_remove = gone_count == MAX_GONE || (gone_count > 0 && gone_bytes + call->bytes > MAX_BYTES);
        if (must_remove) {
            freed = remove_oldest();
        } else if (call->bytes <= MAX_BYTES) {
            const void **place = place_of(call->object.object, NULL);
            if (place) {
                gone[(oldest + gone_count++) % MAX_GONE] = (struct gone){.object = call->object.object,
                                                                         .block = block,
                                                                         .bytes = call->bytes,
                                                                         .time = objects_nanoseconds(),
                                                                         .stack = stack,
                                                                         .kind = call->object.kind,
                                                                         .number = call->number};
                gone_bytes += call->bytes;
                __atomic_fetch_add(&objects_gone, 1, __ATOMIC_RELAXED);
                __atomic_store_n(place, call->object.object, __ATOMIC_RELEASE);
                block = NULL;
            }
        }
        unlock();
        if (!must_remove)
            break;
        free(freed);
    }
    return block;
}

/* ---- uses ---- */

/* Whether objects of a kind begin with a pointer to their context. */
static bool has_context(uint32_t kind)
{
    return kind > USERDMA_OBJECT_CONTEXT && kind < USERDMA_OBJECT_CM_ID && kind != USERDMA_OBJECT_FLOW;
}

const void *object_context(struct object_use use)
{
    if (use.kind == USERDMA_OBJECT_FLOW)
        return ((const struct ibv_flow *)use.object)->context;
    return has_context(use.kind) ? *(const void *const *)use.object : NULL;
}

uint32_t object_number(struct object_use use)
{
    const void *object = use.object;
    switch (use.kind) {
    case USERDMA_OBJECT_PD:
        return ((const struct ibv_pd *)object)->handle;
    case USERDMA_OBJECT_CQ:
        return ((const struct ibv_cq *)object)->handle;
    case USERDMA_OBJECT_QP:
        return ((const struct ibv_qp *)object)->qp_num;
    case USERDMA_OBJECT_MR:
        return ((const struct ibv_mr *)object)->handle;
    case USERDMA_OBJECT_MW:
        return ((const struct ibv_mw *)object)->handle;
    case USERDMA_OBJECT_AH:
        return ((const struct ibv_ah *)object)->handle;
    case USERDMA_OBJECT_SRQ:
        return ((const struct ibv_srq *)object)->handle;
    default:
        return USERDMA_UNKNOWN_NUMBER;
    }
}

/* Reports the use of `use` if `object` (its address, or that of its context) is gone. */
static bool report(const char *function, struct object_use use, const void *object, enum object_effect effect)
{
    if (!place_of(object, object) || !lock())
        return false;
    struct gone *found = find(object);
    struct gone_use told;
    bool is_told = false;
    if (found) {
        is_told = found->reports < MAX_REPORTS_OF_OBJECT && reports < MAX_REPORTS;
        if (is_told) {
            found->reports++;
            reports++;
        }
        told = (struct gone_use){.function = function,
                                 .kind = use.kind,
                                 .number = found->number,
                                 .use = effect == OBJECT_DESTROYED ? USERDMA_GONE_DESTROY : USERDMA_GONE_CALL,
                                 .is_owner = object != use.object,
                                 .destroyed = found->stack,
                                 .age = objects_nanoseconds() - found->time};
    }
    unlock();
    if (is_told) {
        const int saved = errno;
        if (told.is_owner)
            told.number = object_number(use);
        note_gone(&told, stack_here());
        errno = saved;
    }
    return found != NULL;
}

/* Reports that a call takes an object which another thread destroys now. */
static void report_concurrent(const char *function, struct object_use use)
{
    if (__atomic_fetch_add(&reports, 1, __ATOMIC_RELAXED) >= MAX_REPORTS)
        return;
    const int saved = errno;
    const struct gone_use told = {
        .function = function, .kind = use.kind, .number = object_number(use), .use = USERDMA_GONE_CONCURRENT};
    note_gone(&told, stack_here());
    errno = saved;
}

/* Not inlined: posts and polls need little stack. */
static __attribute__((noinline)) bool is_gone(const char *function, struct object_use use, enum object_effect effect)
{
    if (!use.object || use.kind & OBJECT_ARGUMENT)
        return false;
    if (report(function, use, use.object, effect))
        return true;
    const void *context = object_context(use);
    if (context && report(function, use, context, effect))
        return true;
    /* librdmacm reads the channel of an identifier in every call. */
    return use.kind == USERDMA_OBJECT_CM_ID &&
           report(function, use, ((const struct rdma_cm_id *)use.object)->channel, effect);
}

bool object_is_gone(const char *function, uint32_t kind, const void *object)
{
    const struct object_use use = {kind, object};
    if (object && object_is_being_destroyed(object)) {
        report_concurrent(function, use);
        return true;
    }
    return is_gone(function, use, OBJECT_USED);
}

/* ---- calls ---- */

bool object_is_being_destroyed(const void *object)
{
    if (LIKELY(__atomic_load_n(&userdma_destroying, __ATOMIC_RELAXED) == 0) ||
        !__atomic_load_n(&sees_frees, __ATOMIC_RELAXED))
        return false;
    for (const struct object_call *call = current; call; call = call->outer)
        if (call->effect == OBJECT_DESTROYED && call->object.object == object)
            return false;
    for (unsigned i = 0; i < MAX_DESTROYING; i++)
        if (__atomic_load_n(&destroying[i], __ATOMIC_RELAXED) == object)
            return true;
    return false;
}

static void begin_destroying(struct object_call *call)
{
    call->number = object_number(call->object);
    for (unsigned i = 0; i < MAX_DESTROYING; i++) {
        const void *expected = NULL;
        if (__atomic_compare_exchange_n(&destroying[i], &expected, call->object.object, false, __ATOMIC_ACQ_REL,
                                        __ATOMIC_RELAXED)) {
            call->destroying = (int)i;
            __atomic_fetch_add(&userdma_destroying, 1, __ATOMIC_RELAXED);
            __atomic_fetch_add(&objects_gone, 1, __ATOMIC_SEQ_CST);
            return;
        }
    }
}

static void end_destroying(const struct object_call *call)
{
    if (call->destroying < 0)
        return;
    __atomic_store_n(&destroying[call->destroying], NULL, __ATOMIC_RELEASE);
    __atomic_fetch_sub(&userdma_destroying, 1, __ATOMIC_RELAXED);
    __atomic_fetch_sub(&objects_gone, 1, __ATOMIC_RELAXED);
}

/* Functions whose first object may be NULL, or which refuse NULL themselves (src/tools/check/library-refusals.ts). */
static bool may_lack_object(const char *function)
{
    return strcmp(function, "rdma_create_id") == 0 || strcmp(function, "rdma_create_ep") == 0 ||
           strcmp(function, "rdma_ack_cm_event") == 0;
}

static void tell(const struct gone_use *use)
{
    const int saved = errno;
    if (__atomic_fetch_add(&reports, 1, __ATOMIC_RELAXED) < MAX_REPORTS)
        note_gone(use, stack_here());
    errno = saved;
}

void object_tell_argument(const char *function, uint32_t position, uint64_t value)
{
    tell(&(struct gone_use){.function = function,
                            .kind = position,
                            .use = USERDMA_GONE_ARGUMENT,
                            .number = USERDMA_UNKNOWN_NUMBER,
                            .value = value});
}

bool object_lacks_argument(const char *function, uint32_t position, const void *argument)
{
    if (LIKELY(pointer_may_be_memory(argument)))
        return false;
    object_tell_argument(function, position, (uintptr_t)argument);
    return true;
}

/* Whether a pointer is that of no object of its kind; then that was reported. Of a destroyed one more is known. */
static bool is_garbage(const char *function, struct object_use use, enum object_effect effect)
{
    struct gone_use told;
    if (!use.object || use.kind == 0 || use.kind & OBJECT_ARGUMENT)
        return false;
    if (UNLIKELY(__atomic_load_n(&objects_gone, __ATOMIC_RELAXED) != 0) && report(function, use, use.object, effect))
        return true;
    if (LIKELY(known_check(use, &told)))
        return false;
    told.function = function;
    tell(&told);
    return true;
}

bool object_is_garbage(const char *function, uint32_t kind, const void *object)
{
    return is_garbage(function, (struct object_use){kind, object}, OBJECT_USED);
}

/* Whether the first object exists, and those of verbs are all of one context; if not, that is reported. */
static bool is_usable(const char *function, const struct object_use *uses, size_t count)
{
    struct gone_use told = {.function = function, .number = USERDMA_UNKNOWN_NUMBER};
    if (UNLIKELY(uses[0].kind != 0 && !uses[0].object) && !may_lack_object(function)) {
        told.kind = uses[0].kind;
        told.use = USERDMA_GONE_NOTHING;
    } else {
        const void *context = uses[0].kind == USERDMA_OBJECT_CONTEXT ? uses[0].object
                              : uses[0].object                       ? object_context(uses[0])
                                                                     : NULL;
        for (size_t i = 1; context && i < count; i++) {
            const void *other = uses[i].object ? object_context(uses[i]) : NULL;
            if (LIKELY(!other || other == context))
                continue;
            told.kind = uses[i].kind;
            told.use = USERDMA_GONE_FOREIGN;
            told.number = object_number(uses[i]);
            break;
        }
    }
    for (size_t i = 1; i < count && told.kind == 0; i++)
        if (uses[i].kind & OBJECT_ARGUMENT &&
            object_lacks_argument(function, uses[i].kind & ~(uint32_t)OBJECT_ARGUMENT, uses[i].object))
            return false;
    if (LIKELY(told.kind == 0))
        return true;
    /* Of these the refusal is told, which says what the identifier lacks. */
    if (!calls_are_running() || strncmp(calls_last.function, "rdma_create_", strlen("rdma_create_")) != 0)
        tell(&told);
    return false;
}

bool object_enter(struct object_call *call, const char *function, enum object_effect effect,
                  const struct object_use *uses, size_t count)
{
    /* Before anything is read of the objects. */
    for (size_t i = 0; i < count; i++)
        if (UNLIKELY(is_garbage(function, uses[i], i == 0 ? effect : OBJECT_USED)))
            return false;
    if (UNLIKELY(__atomic_load_n(&objects_gone, __ATOMIC_RELAXED) != 0)) {
        for (size_t i = 0; i < count; i++)
            if (is_gone(function, uses[i], i == 0 ? effect : OBJECT_USED))
                return false;
        if (effect == OBJECT_DESTROYED && uses[0].object && object_is_being_destroyed(uses[0].object)) {
            report_concurrent(function, uses[0]);
            return false;
        }
    }
    if (UNLIKELY(!is_usable(function, uses, count)))
        return false;
    calls_note(function);
    *call = (struct object_call){.function = function,
                                 .object = uses[0],
                                 .effect = effect,
                                 .number = USERDMA_UNKNOWN_NUMBER,
                                 .context = uses[0].kind == USERDMA_OBJECT_CONTEXT ? uses[0].object
                                            : uses[0].object                       ? object_context(uses[0])
                                                                                   : NULL,
                                 .destroying = -1};
    if (call->context)
        note_call(call->context, uses[0], effect == OBJECT_DESTROYED);
    refusals_enter(call);
    if (effect == OBJECT_DESTROYED && call->object.object) {
        polls_destroying(call->object.kind, call->object.object);
        begin_destroying(call);
        /* A call that was left by siglongjmp is still in the list: it is not above this one on the stack. */
        call->outer = (uintptr_t)current > (uintptr_t)call ? current : NULL;
        current = call;
    }
    return true;
}

void object_leave(struct object_call *call, int error, const uint64_t *facts)
{
    refusals_leave(call, error, facts);
    if (call->effect != OBJECT_DESTROYED && call->object.object)
        verbs_keep_wrapped(call->object.kind, (void *)(uintptr_t)call->object.object, call->context);
    if (call->effect != OBJECT_DESTROYED || !call->object.object)
        return;
    const int saved = errno;
    current = call->outer;
    if (error == 0) {
        known_remove(call->object.object);
        polls_destroyed(call->object.object);
        promises_destroyed(call->object.object);
        locks_destroyed(call->object.kind, call->object.object);
        note_destroyed(call->object);
    }
    void *block = call->block ? keep(call, stack_here()) : NULL;
    /* After keep: between both the object would look alive. Before free: another object may get the address. */
    end_destroying(call);
    free(block);
    errno = saved;
}

/* Called by shim/frees/frees.c: whether the block is that of an object which this thread destroys. Then it is kept. */
EXPORT bool userdma_holds(void *block, size_t bytes);
bool userdma_holds(void *block, size_t bytes)
{
    for (struct object_call *call = current; call; call = call->outer) {
        const uintptr_t start = (uintptr_t)block, object = (uintptr_t)call->object.object;
        if (call->destroying >= 0 && !call->block && object >= start && object < start + bytes) {
            call->block = block;
            call->bytes = bytes;
            __atomic_store_n(&sees_frees, true, __ATOMIC_RELAXED);
            return true;
        }
    }
    return false;
}

IN_CHILD void objects_in_child(void)
{
    threads_in_child();
    locks_in_child();
    locked = 0;
    for (unsigned i = 0; i < MAX_DESTROYING; i++)
        destroying[i] = NULL;
    userdma_destroying = 0;
    objects_gone = gone_count;
}
