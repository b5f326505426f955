/*
 * The logs in a context's memory file, for `userdma check`. The post log and the position log tell where requests were
 * posted. The event log, with USERDMA_STACKS=2 or 3, tells in order what threads did: posts, refused posts, polls with
 * completions, and when each thread last waited for others. The taken counts tell which completions the program has
 * polled.
 *
 * The logs are mapped through another descriptor of the file, which is closed at once and does not keep the context
 * alive. They stay mapped until another context has this descriptor number.
 */
#define _GNU_SOURCE
#include "noted.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>


/* Maximum yields of a thread for the daemon to read a full log. Then the thread overwrites an entry. */
#define MAX_YIELDS 10000
/* Yields between two attempts to wake the daemon. */
#define YIELDS_PER_WAKE 64

struct log {
    /* A mapping of the logs; NULL: none. */
    char *memory;
    /* The daemon's number of the mapped context, and the connection on which the number is valid. */
    uint32_t context;
    uint16_t generation;
};
/* By descriptor, FD_TABLE_SIZE entries. NULL: no context is mapped, and posts reach the post log by pwrite. */
static struct log *logs;

/* As shim_nanoseconds: when this process started, and when one of its threads last created a thread. */
static uint64_t process_start, last_creation;
/* When this thread last waited for others; 0: never. */
static __thread uint64_t acquired __attribute__((tls_model("initial-exec")));
static __thread uint32_t thread_id __attribute__((tls_model("initial-exec")));
static uint32_t process_id;

/*
 * This process counts as having waited for all that happened before its start, because its parent may have. Also called
 * in the child of a fork.
 */
static void note_process_start(void)
{
    process_start = shim_nanoseconds();
    acquired = process_start;
    thread_id = 0;
    process_id = (uint32_t)getpid();
}

void events_detect(void)
{
    const char *wanted = getenv(USERDMA_ENV_STACKS);
    shim_finds_races = recorder_is_on && strcmp(wanted, "2") == 0;
    shim_logs_events = shim_finds_races || (recorder_is_on && strcmp(wanted, "3") == 0);
    note_process_start();
    if (!recorder_is_on)
        return;
    waiting_detect();
    hashes_detect();
    slots_detect();
    void *memory = REAL(mmap64)(NULL, FD_TABLE_SIZE * sizeof(struct log), PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory != MAP_FAILED) {
        madvise(memory, FD_TABLE_SIZE * sizeof(struct log), MADV_NOHUGEPAGE);
        logs = memory;
    }
    if (shim_logs_events)
        pthread_atfork(NULL, NULL, note_process_start);
}

void events_open(int fd)
{
    const struct fd_entry *entry = fd_lookup(fd);
    if (!logs || !entry || entry->kind != FD_CONTEXT)
        return;
    struct log *log = &logs[fd];
    if (log->memory && log->context == entry->context && log->generation == entry->generation)
        return;
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    const int file = REAL(open64)(path, O_RDWR | O_CLOEXEC);
    if (file < 0)
        return;
    void *memory = REAL(mmap64)(NULL, USERDMA_EVENT_LOG_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file,
                                (off64_t)USERDMA_EVENT_LOG_OFFSET);
    REAL(close)(file);
    if (log->memory)
        munmap(log->memory, USERDMA_EVENT_LOG_BYTES);
    log->context = entry->context;
    log->generation = entry->generation;
    __atomic_store_n(&log->memory, memory == MAP_FAILED ? NULL : memory, __ATOMIC_RELEASE);
}

static char *log_of(int fd)
{
    return logs && (unsigned)fd < FD_TABLE_SIZE ? __atomic_load_n(&logs[fd].memory, __ATOMIC_ACQUIRE) : NULL;
}

struct userdma_post *events_post_log(int fd)
{
    char *log = log_of(fd);
    return log ? (struct userdma_post *)(log + (USERDMA_POST_LOG_OFFSET - USERDMA_EVENT_LOG_OFFSET)) : NULL;
}

struct userdma_position *events_position_log(int fd)
{
    char *log = log_of(fd);
    return log ? (struct userdma_position *)(log + (USERDMA_POSITION_LOG_OFFSET - USERDMA_EVENT_LOG_OFFSET)) : NULL;
}

struct userdma_hash *events_hash_log(int fd)
{
    char *log = log_of(fd);
    return log ? (struct userdma_hash *)(log + (USERDMA_HASH_LOG_OFFSET - USERDMA_EVENT_LOG_OFFSET)) : NULL;
}

void events_taken(int fd, uint32_t cq, uint32_t count)
{
    char *log = log_of(fd);
    if (!log || cq >= USERDMA_TAKEN_COUNTS_ENTRIES)
        return;
    uint32_t *counts = (uint32_t *)(log + (USERDMA_TAKEN_COUNTS_OFFSET - USERDMA_EVENT_LOG_OFFSET));
    __atomic_fetch_add(&counts[cq], count, __ATOMIC_RELEASE);
}

/* Claims the next entry of the event log, and stores its number. The caller writes `sequence` last. */
static struct userdma_event *claim_entry(char *log, int fd, uint64_t *index)
{
    struct userdma_event_log *head = (struct userdma_event_log *)log;
    *index = __atomic_fetch_add(&head->head, 1, __ATOMIC_ACQ_REL);
    for (unsigned i = 0; i < MAX_YIELDS; i++) {
        if (LIKELY(*index - __atomic_load_n(&head->tail, __ATOMIC_ACQUIRE) < USERDMA_EVENT_LOG_ENTRIES))
            break;
        if (i % YIELDS_PER_WAKE == 0)
            device_wake(fd);
        sched_yield();
    }
    return (struct userdma_event *)(log + USERDMA_EVENT_LOG_FIRST_ENTRY) + *index % USERDMA_EVENT_LOG_ENTRIES;
}

void events_note(int fd, uint32_t kind, uint32_t number, uint32_t count, uint64_t wr_id, uint32_t stack)
{
    char *log = log_of(fd);
    if (!log)
        return;
    /* A new thread knows what its creator knew. The latest creation is not before the creation of this thread. */
    if (UNLIKELY(acquired == 0))
        acquired = __atomic_load_n(&last_creation, __ATOMIC_RELAXED);
    if (UNLIKELY(acquired == 0))
        acquired = process_start;
    if (UNLIKELY(thread_id == 0))
        thread_id = (uint32_t)early_syscall(SYS_gettid, 0, 0, 0, 0, 0, 0);
    uint64_t index;
    struct userdma_event *event = claim_entry(log, fd, &index);
    event->time = shim_nanoseconds();
    event->acquired = acquired;
    event->wr_id = wr_id;
    event->pid = process_id;
    event->tid = thread_id;
    event->kind = kind;
    event->number = number;
    event->count = count;
    event->stack = stack;
    __atomic_store_n(&event->sequence, index + 1, __ATOMIC_RELEASE);
}

void events_waited(void)
{
    acquired = shim_nanoseconds();
}

/* Called by shim/waits/waits.c after a wait for `fd`; -1: no descriptor. */
EXPORT void userdma_waited(int fd);
void userdma_waited(int fd)
{
    /* A wait on a descriptor of ours is for a completion. The poll, not the wait, orders the threads. */
    if (shim_logs_events && !recorder_in_provider && (fd < 0 || fd_kind(fd) == FD_OTHER))
        events_waited();
}

/* Called by shim/waits/waits.c before this thread creates a thread. */
EXPORT void userdma_creates_thread(void);
void userdma_creates_thread(void)
{
    if (shim_logs_events)
        __atomic_store_n(&last_creation, shim_nanoseconds(), __ATOMIC_RELAXED);
}
