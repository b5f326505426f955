/*
 * Objects of libibverbs and librdmacm: the functions that take them are wrapped. A program that uses a destroyed object
 * gets an error and a report.
 *
 *   objects.c      destroyed objects, and calls that destroy one now
 *   functions.c    the functions that the libraries export
 *   operations.c   the functions of contexts that verbs.h calls inline
 *
 * The memory of a destroyed object is not freed at once (objects_hold), so its address is not that of another object.
 * If it is freed in another way than by free() in the call that destroys the object, the object is not known.
 */
#ifndef USERDMA_OBJECTS_H
#define USERDMA_OBJECTS_H

#include "../protocol.h"
#include "recorder.h"

/* An object that a call takes, or another argument that must not be NULL. */
struct object_use {
    /* USERDMA_OBJECT_…, or OBJECT_ARGUMENT with the position of an argument, from 1. */
    uint32_t kind;
    /* NULL: none. */
    const void *object;
};

enum { OBJECT_ARGUMENT = 0x100 };

enum object_effect {
    OBJECT_USED,
    /* The call creates an object. */
    OBJECT_CREATED,
    /* The call destroys its first object. */
    OBJECT_DESTROYED,
};

/* A call that a thread makes. */
struct object_call {
    const char *function;
    struct object_use object;
    enum object_effect effect;
    uint32_t number;
    /* That of the object, or the object itself; NULL: none. */
    const void *context;
    /* Of a call that destroys an object: its index in the list of such calls; -1: it is not in it. */
    int destroying;
    /* The block of the object, which the call has freed; NULL: none. */
    void *block;
    size_t bytes;
    /* The call of this thread, which also destroys an object, that makes this one. */
    struct object_call *outer;
    /* Of refusals.c: the call of this thread that makes this one, and refusals_of_device when this one began. */
    const struct object_call *caller;
    uint32_t refused_before;
};

/* A use of a destroyed object. */
struct gone_use {
    const char *function;
    uint32_t kind;
    uint32_t number;
    /* USERDMA_GONE_… */
    uint32_t use;
    /* The object's context was closed, not the object destroyed. */
    bool is_owner;
    /* The stack of the call that destroyed the object, and the nanoseconds since; 0: unknown. */
    uint32_t destroyed;
    uint64_t age;
    /* The pointer, of ARGUMENT and GARBAGE. */
    uint64_t value;
};

/* Number of objects that are destroyed, or being destroyed. */
extern uint32_t objects_gone;

/*
 * A call begins, while recorder_is_on. `function`: a literal. False: an object is gone, and was reported; the call must
 * not be made, nor ended by object_leave.
 */
bool object_enter(struct object_call *call, const char *function, enum object_effect effect,
                  const struct object_use *uses, size_t count);
/*
 * A call has ended. `error`: 0 or a positive errno. `facts`: 4 facts about the arguments of a call that has failed
 * (refusals.h); NULL: none. Preserves errno.
 */
void object_leave(struct object_call *call, int error, const uint64_t *facts);
/* As object_leave; the facts are evaluated only if there is an error. */
#define OBJECT_LEAVE(call, error, ...)                                                                                 \
    do {                                                                                                               \
        const int object_error = (error);                                                                              \
        object_leave(call, object_error, object_error == 0 ? NULL : (const uint64_t[4]){__VA_ARGS__});                 \
    } while (0)

/* The context of an object, NULL: it has none; and the number of a queue pair, or the handle of another object. */
const void *object_context(struct object_use use);
uint32_t object_number(struct object_use use);

/* Whether an argument, or a part of one, is no pointer to memory; then that was reported. `position`: from 1. */
bool object_lacks_argument(const char *function, uint32_t position, const void *argument);
/* Reports an argument, or a part of one, that is wrong. `value`: a pointer or a number. */
void object_tell_argument(const char *function, uint32_t position, uint64_t value);

/*
 * Whether a pointer, which may be NULL, is that of no object of the kind, or of a destroyed one; then that was
 * reported.
 */
bool object_is_garbage(const char *function, uint32_t kind, const void *object);

/* For posts and polls: whether the object is gone; then it was reported. */
#define IS_GONE(function, kind, object)                                                                                \
    (UNLIKELY(__atomic_load_n(&objects_gone, __ATOMIC_RELAXED) != 0) && object_is_gone(function, kind, object))
bool object_is_gone(const char *function, uint32_t kind, const void *object);
/* Whether another thread destroys the object now. */
#define IS_BEING_DESTROYED(object)                                                                                     \
    (UNLIKELY(__atomic_load_n(&objects_gone, __ATOMIC_RELAXED) != 0) && object_is_being_destroyed(object))
bool object_is_being_destroyed(const void *object);

/* In the child of a fork. */
void objects_in_child(void);

/* Nanoseconds of CLOCK_MONOTONIC. */
uint64_t objects_nanoseconds(void);

/* ---- known.c ---- */

/* A function has returned an object, or an object was destroyed. `object` may be NULL, and `kind` 0. */
void known_add(uint32_t kind, const void *object);
void known_remove(const void *object);
/* Whether a pointer that is not NULL is that of an object of its kind; if not, all but the function is in `told`. */
bool known_check(struct object_use use, struct gone_use *told);
/* False for NULL, small numbers, and numbers that are no address of a program. */
bool pointer_may_be_memory(const void *pointer);

/* The kind of what a function returns. */
#define KIND_OF(result)                                                                                                \
    _Generic((result),                                                                                                 \
        struct ibv_context *: USERDMA_OBJECT_CONTEXT,                                                                  \
        struct ibv_pd *: USERDMA_OBJECT_PD,                                                                            \
        struct ibv_cq *: USERDMA_OBJECT_CQ,                                                                            \
        struct ibv_qp *: USERDMA_OBJECT_QP,                                                                            \
        struct ibv_mr *: USERDMA_OBJECT_MR,                                                                            \
        struct ibv_mw *: USERDMA_OBJECT_MW,                                                                            \
        struct ibv_ah *: USERDMA_OBJECT_AH,                                                                            \
        struct ibv_srq *: USERDMA_OBJECT_SRQ,                                                                          \
        struct ibv_comp_channel *: USERDMA_OBJECT_CHANNEL,                                                             \
        struct rdma_event_channel *: USERDMA_OBJECT_CM_CHANNEL,                                                        \
        default: 0)

/* ---- operations.c ---- */

/* Wraps the functions of a context that take objects. */
struct ibv_context;
void operations_wrap(struct ibv_context *context);

/* ---- verbs.c ---- */

/* Replaces the functions of a destroyed queue pair or CQ, if it is an extended one. `bytes`: of its memory. */
void verbs_gone(uint32_t kind, void *object, size_t bytes);

/* ---- of each library ---- */

/* A call on an object begins, which perhaps destroys it. `context`: the object's; not NULL. */
void note_call(const void *context, struct object_use use, bool destroys);
/* An object was destroyed. */
void note_destroyed(struct object_use use);
/* Tells the reader of a use. `stack`: of the call. */
void note_gone(const struct gone_use *use, uint32_t stack);

#endif
