/*
 * Keeps the wait table (src/spec/wait-table.ts). A thread writes only its own slot, without locks and without memory of
 * the program's allocator: it may wait inside it. The table exists before a connection: a program's main thread may
 * wait for threads that open devices.
 */
#define _GNU_SOURCE
#include "noted.h"

#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../recorder/orders.h"

#define FILE_BYTES (USERDMA_LEND_RING_OFFSET + USERDMA_LEND_RING_BYTES)

/* The file, the table and the ring of lends (lends.c); NULL: none. */
static char *table;
static int file = -1;
/* The first slot that may be free. */
static uint32_t first_free;
/* Marks the slot of a thread free at the thread's end. */
static pthread_key_t at_end;
/* Walks of the stack need neither the loader's lock nor memory. */
static bool can_walk;

static TLS struct userdma_wait_slot *own;
/* This thread gets no slot. */
static TLS bool has_none;
/* Where this thread's noted wait began: waits of deeper frames are parts of it. */
static TLS uintptr_t noted_at;
TLS uint32_t waiting_empty_polls;

static struct userdma_wait_table *header(void)
{
    return (struct userdma_wait_table *)table;
}

static struct userdma_wait_slot *slots(void)
{
    return (struct userdma_wait_slot *)(table + USERDMA_WAIT_TABLE_FIRST_SLOT);
}

/* ---- the file ---- */

static void thread_ends(void *slot)
{
    struct userdma_wait_slot *ended = slot;
    own = NULL;
    if (!table || ended < slots() || ended >= slots() + USERDMA_WAIT_TABLE_SLOTS)
        return; /* of the parent */
    const uint32_t index = (uint32_t)(ended - slots());
    __atomic_store_n(&ended->kind, USERDMA_WAIT_NONE, __ATOMIC_RELAXED);
    __atomic_store_n(&ended->thread, 0, __ATOMIC_RELEASE);
    if (index < __atomic_load_n(&first_free, __ATOMIC_RELAXED))
        __atomic_store_n(&first_free, index, __ATOMIC_RELAXED);
}

static void create(void)
{
    void *memory;
    const int fd = fd_of_memory("userdma waits", FILE_BYTES, &memory);
    if (fd < 0)
        return;
    first_free = 0;
    ((struct userdma_wait_table *)memory)->sample_signal = samples_signal();
    file = fd_hide(fd, -1, true);
    __atomic_store_n(&table, memory, __ATOMIC_RELEASE);
}

void waiting_detect(void)
{
    const int saved = errno;
    can_walk = dlsym(RTLD_DEFAULT, "_dl_find_object") != NULL;
    if (pthread_key_create(&at_end, thread_ends) == 0)
        create();
    errno = saved;
}

IN_CHILD void waiting_in_child(void)
{
    own = NULL;
    has_none = false;
    if (!table)
        return;
    munmap(table, FILE_BYTES);
    table = NULL;
    if (file >= 0) {
        fd_forget_hidden(file);
        REAL(close)(file);
        file = -1;
    }
    create();
}

void waiting_moved(int old_fd, int new_fd)
{
    if (file == old_fd)
        file = new_fd;
}

char *waiting_lend_ring(void)
{
    char *memory = __atomic_load_n(&table, __ATOMIC_ACQUIRE);
    return memory ? memory + USERDMA_LEND_RING_OFFSET : NULL;
}

/* ---- modules ---- */

struct modules {
    struct userdma_wait_module *next;
    unsigned count;
};

static int describe(struct dl_phdr_info *info, size_t size, void *argument)
{
    (void)size;
    struct modules *modules = argument;
    for (unsigned i = 0; i < info->dlpi_phnum && modules->count < USERDMA_WAIT_TABLE_MODULES; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        if (segment->p_type != PT_LOAD || !(segment->p_flags & PF_X))
            continue;
        struct userdma_wait_module *module = modules->next++;
        modules->count++;
        module->base = info->dlpi_addr;
        module->start = info->dlpi_addr + segment->p_vaddr;
        module->end = module->start + segment->p_memsz;
        memset(module->path, 0, sizeof module->path);
        if (info->dlpi_name && *info->dlpi_name)
            strncpy(module->path, info->dlpi_name, sizeof module->path - 1);
        else if (readlink("/proc/self/exe", module->path, sizeof module->path - 1) < 0)
            module->path[0] = 0;
    }
    return 0;
}

void waiting_describe_modules(void)
{
    if (!table)
        return;
    const int saved = errno;
    struct modules modules = {.next = (struct userdma_wait_module *)(table + USERDMA_WAIT_TABLE_FIRST_MODULE)};
    dl_iterate_phdr(describe, &modules);
    __atomic_store_n(&header()->modules, modules.count, __ATOMIC_RELEASE);
    errno = saved;
}

int waiting_file(void)
{
    if (file >= 0)
        waiting_describe_modules();
    return file;
}

/* ---- slots ---- */

__attribute__((noinline)) static struct userdma_wait_slot *find_slot(void)
{
    if (has_none || !table)
        return NULL;
    const uint32_t thread = (uint32_t)threads_own();
    uint32_t index = __atomic_load_n(&first_free, __ATOMIC_RELAXED);
    for (; index < USERDMA_WAIT_TABLE_SLOTS; index++) {
        uint32_t none = 0;
        if (__atomic_load_n(&slots()[index].thread, __ATOMIC_RELAXED) == 0 &&
            __atomic_compare_exchange_n(&slots()[index].thread, &none, thread, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
            break;
    }
    if (index == USERDMA_WAIT_TABLE_SLOTS) {
        has_none = true;
        return NULL;
    }
    __atomic_store_n(&first_free, index + 1, __ATOMIC_RELAXED);
    struct userdma_wait_slot *slot = &slots()[index];
    slot->kind = USERDMA_WAIT_NONE;
    slot->sequence++;
    slot->self = (uint64_t)pthread_self();
    slot->batch = slot->poll_stack = slot->stack = slot->depth = 0;
    memset(slot->polls, 0, sizeof slot->polls);
    memset(slot->found, 0, sizeof slot->found);
    slot->next_found = 0;
    uint32_t threads = __atomic_load_n(&header()->threads, __ATOMIC_RELAXED);
    while (threads <= index && !__atomic_compare_exchange_n(&header()->threads, &threads, index + 1, false,
                                                            __ATOMIC_RELEASE, __ATOMIC_RELAXED)) {
    }
    own = slot;
    pthread_setspecific(at_end, slot);
    return slot;
}

static inline struct userdma_wait_slot *own_slot(void)
{
    return LIKELY(own != NULL) ? own : find_slot();
}

static void take_frames(struct userdma_wait_slot *slot, const void *caller, bool may_allocate)
{
    void *frames[USERDMA_WAIT_TABLE_FRAMES];
    slot->depth = 0;
    if (can_walk && (may_allocate || unwind_is_ready()))
        slot->depth = unwind_frames(frames, NULL, USERDMA_WAIT_TABLE_FRAMES);
    else if (caller) {
        frames[0] = (void *)(uintptr_t)caller;
        slot->depth = 1;
    }
    memcpy(slot->frames, frames, slot->depth * sizeof frames[0]);
}

/* ---- waits ---- */

/* Whether the thread may be in the program's allocator, which waits for nothing else. */
static bool may_be_in_allocator(uint32_t kind)
{
    return kind == USERDMA_WAIT_MUTEX || kind == USERDMA_WAIT_RWLOCK || kind == USERDMA_WAIT_CONDITION ||
           kind == USERDMA_WAIT_SEMAPHORE;
}

static bool is_of_verbs(uint32_t kind)
{
    return kind == USERDMA_WAIT_CHANNEL || kind == USERDMA_WAIT_ASYNC || kind == USERDMA_WAIT_CM;
}

void *userdma_wait_begins(uint32_t kind, uint64_t object, uint32_t owner, uint32_t flags, const void *caller, bool is_certain)
{
    struct userdma_wait_slot *slot = own_slot();
    const uintptr_t frame = (uintptr_t)__builtin_frame_address(0);
    if (UNLIKELY(!slot) || (slot->kind != USERDMA_WAIT_NONE && frame < noted_at))
        return NULL;
    noted_at = frame;
    slot->object = object;
    slot->owner = owner;
    slot->flags = flags;
    slot->descriptor_count = 0;
    if (UNLIKELY(is_of_verbs(kind))) {
        slot->depth = 0;
        slot->stack = stack_here();
    } else {
        slot->stack = 0;
        if (is_certain) {
            const int saved = errno;
            take_frames(slot, caller, !may_be_in_allocator(kind));
            errno = saved;
        } else {
            memcpy(slot->frames, &caller, sizeof caller);
            slot->depth = 1;
        }
    }
    slot->sequence++;
    __atomic_store_n(&slot->kind, kind, __ATOMIC_RELEASE);
    return slot;
}

void userdma_wait_ends(void *token)
{
    struct userdma_wait_slot *slot = token;
    if (!slot || slot != own)
        return;
    __atomic_store_n(&slot->kind, USERDMA_WAIT_NONE, __ATOMIC_RELEASE);
    slot->sequence++;
}

void *userdma_sleep_begins(const void *caller)
{
    struct userdma_wait_slot *slot = own_slot();
    const uintptr_t frame = (uintptr_t)__builtin_frame_address(0);
    if (UNLIKELY(!slot) || (slot->kind != USERDMA_WAIT_NONE && frame < noted_at))
        return NULL;
    noted_at = frame;
    const int saved = errno;
    slot->object = slot->flags & USERDMA_WAIT_FLAG_SLEPT ? slot->object + 1 : 1;
    slot->flags = USERDMA_WAIT_FLAG_SLEPT | USERDMA_WAIT_FLAG_TIMED;
    slot->stack = slot->descriptor_count = 0;
    take_frames(slot, caller, true);
    errno = saved;
    __atomic_store_n(&slot->kind, USERDMA_WAIT_SLEEP, __ATOMIC_RELEASE);
    return slot;
}

void userdma_sleep_ends(void *token)
{
    struct userdma_wait_slot *slot = token;
    if (slot && slot == own)
        __atomic_store_n(&slot->kind, USERDMA_WAIT_NONE, __ATOMIC_RELEASE);
}

void userdma_wait_owner(void *token, uint32_t owner)
{
    struct userdma_wait_slot *slot = token;
    if (slot && slot == own)
        __atomic_store_n(&slot->owner, owner, __ATOMIC_RELAXED);
}

void userdma_wait_descriptors(void *token, const int *descriptors, uint32_t count)
{
    struct userdma_wait_slot *slot = token;
    if (UNLIKELY(count == 1 && descriptors[0] < 0))
        check_no_descriptor();
    if (!slot)
        return;
    const uint32_t most = count < USERDMA_WAIT_TABLE_DESCRIPTORS ? count : USERDMA_WAIT_TABLE_DESCRIPTORS;
    memcpy(slot->descriptors, descriptors, most * sizeof descriptors[0]);
    slot->descriptor_count = count;
}

void userdma_looked(void)
{
    if (own)
        own->sequence++;
}

void userdma_signals(const void *object, const void *caller)
{
    char *memory = table;
    if (UNLIKELY(!memory))
        return;
    const uint64_t address = (uint64_t)(uintptr_t)object;
    const uint32_t index = (uint32_t)(address >> 3) * 0x9e3779b1u >> 22;
    _Static_assert(USERDMA_WAIT_TABLE_SIGNALS == 1 << 10, "the hash has 10 bits");
    struct userdma_wait_signal *signal = (struct userdma_wait_signal *)(memory + USERDMA_WAIT_TABLE_FIRST_SIGNAL) + index;
    signal->count = signal->object == address ? signal->count + 1 : 1;
    signal->object = address;
    signal->caller = (uint64_t)(uintptr_t)caller;
    signal->thread = (uint32_t)threads_own();
}

/* ---- samples ---- */

struct userdma_wait_sample *waiting_sample(void)
{
    char *memory = __atomic_load_n(&table, __ATOMIC_ACQUIRE);
    if (!memory)
        return NULL;
    const uint32_t index = __atomic_fetch_add(&header()->samples, 1, __ATOMIC_RELAXED) % USERDMA_WAIT_TABLE_SAMPLES;
    struct userdma_wait_sample *sample = (struct userdma_wait_sample *)(memory + USERDMA_WAIT_TABLE_FIRST_SAMPLE) + index;
    __atomic_store_n(&sample->thread, 0, __ATOMIC_RELEASE);
    sample->sequence = sample->polls = 0;
    if (own) {
        const struct userdma_wait_poll *polls = (const struct userdma_wait_poll *)own->polls;
        sample->sequence = own->sequence;
        for (unsigned i = 0; i < USERDMA_WAIT_TABLE_POLLS; i++)
            sample->polls += polls[i].count;
    }
    return sample;
}

void waiting_no_samples(void)
{
    if (table)
        __atomic_store_n(&header()->sample_signal, 0, __ATOMIC_RELEASE);
}

/* ---- polls ---- */

/* Empty polls in a row after which the stack is taken, and after each power of two from there on. */
#define EMPTY_POLLS 64

__attribute__((noinline)) static void take_poll_stack(struct userdma_wait_slot *slot)
{
    slot->poll_stack = stack_here();
}

void waiting_polls(const struct ibv_cq *cq)
{
    struct userdma_wait_slot *slot = own_slot();
    if (UNLIKELY(!slot))
        return;
    struct userdma_wait_poll *polls = (struct userdma_wait_poll *)slot->polls, *poll = &polls[slot->last_poll % USERDMA_WAIT_TABLE_POLLS];
    const int fd = cq->context->cmd_fd;
    if (UNLIKELY(poll->cq != cq->handle || poll->fd != fd || poll->count == 0)) {
        unsigned i = 0;
        while (i < USERDMA_WAIT_TABLE_POLLS && (polls[i].cq != cq->handle || polls[i].fd != fd || polls[i].count == 0))
            i++;
        if (i == USERDMA_WAIT_TABLE_POLLS) {
            i = (slot->last_poll + 1) % USERDMA_WAIT_TABLE_POLLS;
            const struct fd_entry *entry = fd_lookup(fd);
            const uint32_t context = entry && entry->kind == FD_CONTEXT ? entry->context : 0;
            polls[i] = (struct userdma_wait_poll){.fd = fd, .cq = cq->handle, .context = context};
        }
        slot->last_poll = i;
        poll = &polls[i];
    }
    poll->count++;
    if (UNLIKELY(slot->kind != USERDMA_WAIT_NONE)) {
        /* A wait that was left by siglongjmp. */
        slot->kind = USERDMA_WAIT_NONE;
        slot->sequence++;
    }
    const uint32_t empty = ++waiting_empty_polls;
    if (UNLIKELY(empty >= EMPTY_POLLS && (empty & (empty - 1)) == 0))
        take_poll_stack(slot);
}

static struct userdma_wait_found *found_at(struct userdma_wait_slot *slot, uint32_t index)
{
    return (struct userdma_wait_found *)slot->found + index % USERDMA_WAIT_TABLE_FOUND;
}

void waiting_found_by(uint32_t asked, uint32_t count, const void *caller)
{
    struct userdma_wait_slot *slot = own;
    if (UNLIKELY(!slot))
        return;
    if (!caller) {
        found_at(slot, slot->next_found - 1)->count++;
        return;
    }
    const struct userdma_wait_poll *poll =
        (const struct userdma_wait_poll *)slot->polls + slot->last_poll % USERDMA_WAIT_TABLE_POLLS;
    struct userdma_wait_found *found = found_at(slot, slot->next_found);
    found->caller = (uint64_t)(uintptr_t)caller;
    found->context = poll->context;
    found->cq = poll->cq;
    found->asked = asked;
    found->count = count;
    slot->next_found++;
}

void *waiting_last_found(void)
{
    const struct userdma_wait_found *found = own ? found_at(own, own->next_found - 1) : NULL;
    return found && found->count > 0 ? (void *)(uintptr_t)found->caller : NULL;
}

/* ---- batches ---- */

void waiting_batch(const struct ibv_qp *qp, const void *caller)
{
    struct userdma_wait_slot *slot = own_slot();
    if (UNLIKELY(!slot))
        return;
    slot->batch = qp->qp_num;
    slot->batch_fd = qp->context->cmd_fd;
    slot->batch_caller = (uint64_t)(uintptr_t)caller;
}

void waiting_batch_ended(void)
{
    if (LIKELY(own != NULL))
        own->batch = 0;
}
