/*
 * What sees a program, in both preload libraries that record it: the shim, for `userdma check` (../check/), and the
 * library of `--host` (../host/). The files of this folder are compiled into both. They include no header of either,
 * and call only the functions that each library provides (below).
 *
 *   verbs.c    where the functions of providers are wrapped; slots.h: the wrappers
 *   polls.c, posts.c, builders.c   those of polls and extended CQs, of posts, of ibv_wr_*; wrapped.h: what they share
 *   own.c      functions of providers' own libraries, as mlx5dv_create_qp
 *   objects.c  objects that are destroyed, and calls with them; objects.h lists further files
 *   locks.c    the lock of each queue: what is noted has the order of the provider's queue
 *   batches.c  mistakes in batches of ibv_wr_*
 *   orders.c   mistakes in polls of extended CQs, and with threads; orders.h lists further files
 *   watched.h  objects by address
 *   stacks.c   stacks of calls and posts, and their numbers
 *   unwind.c   walks of the caller's stack
 *   python.c   frames of Python programs
 *   refusals.c calls that the libraries refuse themselves
 *   acknowledgements.c   events that are read and not acknowledged
 */
#ifndef USERDMA_RECORDER_H
#define USERDMA_RECORDER_H

#undef _FORTIFY_SOURCE
#undef _FILE_OFFSET_BITS

#include <dlfcn.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))
/* For variables of another file that posts and polls read: without this they are read through a table of addresses. */
#define HIDDEN __attribute__((visibility("hidden")))
/* For the child of a fork: ThreadSanitizer does not know that the child has only one thread. */
#define IN_CHILD __attribute__((no_sanitize("thread")))
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#define TLS __thread __attribute__((tls_model("initial-exec")))

/* The function `name` after this library's. */
#define NEXT(name)                                                                                                     \
    ({                                                                                                                 \
        static __typeof__(&name) next;                                                                                 \
        if (UNLIKELY(!__atomic_load_n(&next, __ATOMIC_RELAXED)))                                                       \
            __atomic_store_n(&next, (__typeof__(&name))dlsym(RTLD_NEXT, #name), __ATOMIC_RELAXED);                     \
        next;                                                                                                          \
    })

/* ---- locks ---- */

/* Takes a lock that is 0 when free, by at most `attempts` attempts with yields between them: a holder may be gone. */
static inline bool lock_within(uint32_t *lock, unsigned attempts)
{
    for (unsigned i = 0; i < attempts; i++) {
        if (LIKELY(!__atomic_exchange_n(lock, 1, __ATOMIC_ACQUIRE)))
            return true;
        sched_yield();
    }
    return false;
}

static inline void lock_release(uint32_t *lock)
{
    __atomic_store_n(lock, 0, __ATOMIC_RELEASE);
}

/* ---- verbs.c ---- */

/* The program is recorded. Set once, at its start. */
HIDDEN extern bool recorder_is_on;
/* The program's requests are noted: for the recorder, or for a sanitizer. Likewise. */
HIDDEN extern bool requests_are_noted;
/* This thread is in a post or poll of the provider, whose locks order requests of the queue, and nothing else. */
HIDDEN extern __thread bool recorder_in_provider __attribute__((tls_model("initial-exec")));
#define BY_PROVIDER(call)                                                                                              \
    ({                                                                                                                 \
        recorder_in_provider = true;                                                                                   \
        const int result_of_provider = (call);                                                                         \
        recorder_in_provider = false;                                                                                  \
        result_of_provider;                                                                                            \
    })

/* ---- python.c ---- */

struct python_frame {
    /* The code object (PyCodeObject), without a reference: valid while the frame runs. */
    void *code;
    int line;
};

/* The interpreter's load address; NULL: none was found. */
const void *python_base(void);

/*
 * Stores at most `max_frames` Python frames of this thread, innermost first. Returns their number; 0 if this thread
 * does not hold the GIL. The first call looks for an interpreter.
 */
unsigned python_take(struct python_frame *frames, unsigned max_frames);

/*
 * Writes a frame, `function (file:line)`, and a line feed. Result as of snprintf. Only while the frame runs and this
 * thread holds the GIL.
 */
int python_write(const struct python_frame *frame, char *text, size_t size);

/* ---- unwind.c ---- */

/* Finds this thread's stack, once. Allocates. */
void unwind_find_stack(void);

/* This thread's stack, after unwind_find_stack. */
void unwind_stack(uintptr_t *from, uintptr_t *to);

/* Whether a stack was taken before. */
bool unwind_is_ready(void);

/* Whether an address is on this thread's stack. False before unwind_find_stack. */
bool unwind_is_on_stack(uintptr_t address);

/*
 * Stores at most `max` return addresses of the caller's stack, innermost first: the first is in the caller. Returns
 * their number. `locations`: where they are stored; NULL: not wanted.
 */
unsigned unwind_frames(void **frames, uintptr_t *locations, unsigned max);

/* The address of the outermost frame; 0: unknown. */
uintptr_t unwind_outermost(void);

/* ---- stacks.c ---- */

#define STACK_FRAMES 24
#define PYTHON_FRAMES 16
struct stack {
    void *frames[STACK_FRAMES];
    unsigned depth;
    struct python_frame python[PYTHON_FRAMES];
    unsigned python_depth;
    uint64_t hash;
};

/*
 * The number of the caller's stack, with frames of Python; 0: none. Preserves errno. The first call loads the unwinder
 * and looks for Python, which allocates. So it must not be inside the program's allocator, or at the program's start.
 */
uint32_t stack_here(void);
/* Takes the caller's stack without frames of Python. For free(), in which Python's frames cannot be taken. */
void stack_take_native(struct stack *stack);
/*
 * As stack_take_native, in a signal handler with SA_SIGINFO: the stack that the signal has interrupted. `context`: the
 * handler's third argument. Allocates unless unwind_is_ready.
 */
void stack_take_interrupted(struct stack *stack, const void *context);
/* Whether the signal has interrupted code of this library itself. */
bool stack_is_ours(const void *context);
/* The number of a stack; 0: none. */
uint32_t stack_number(const struct stack *stack);
/* The number of a stack of which only one return address is known; 0: none. May change errno. */
uint32_t stack_at(void *return_address);
/* Writes the frames as STACK of src/spec/session.ts. Takes the loader's lock. */
void stack_write_frames(const struct stack *stack, char *text, size_t size);
/* Libraries were unloaded: other code may now be at the addresses of known stacks. */
void stacks_unloaded(void);
/* How often libraries were unloaded. */
uint32_t stacks_unloads(void);

/* For stack_define: the number for a new stack; 0: too many are known. */
uint32_t stacks_next(void);
/* For stack_define: the number of a known stack; 0: unknown. */
uint32_t stacks_find(uint64_t hash);
/* For stack_define: the stack with this hash has the number that stacks_next has returned. */
void stacks_add(uint64_t hash, uint32_t number);
/* All numbers are invalid. */
void stacks_forget(void);

/* ---- objects.c ---- */

/* The last call of verbs of this thread, for programs that a signal ends. `function`: a literal. */
struct last_call {
    const char *function;
};
extern TLS struct last_call calls_last;

static inline void calls_note(const char *function)
{
    calls_last.function = function;
}

/* ---- of each library ---- */

/* Whether the known numbers are those of this process and of its present reader. */
bool stacks_are_current(void);
/* Gives a stack that is not known a number, and tells it the reader. 0: it has none. May change errno. */
uint32_t stack_define(const struct stack *stack);

#endif
