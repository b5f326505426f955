/*
 * The wrapped functions of posts, polls and batches, for verbs.c, which says when they are wrapped.
 */
#ifndef USERDMA_WRAPPED_H
#define USERDMA_WRAPPED_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stddef.h>

/* The stack pointer at the call of the current function. The program's frames at lower addresses have returned. */
#define FRAME ((uintptr_t)__builtin_dwarf_cfa())

/* Whether a function of an object is one of its wrappers. */
#define IS_WRAPPED(function, name)                                                                                     \
    ({                                                                                                                 \
        bool is_wrapped = false;                                                                                       \
        for (int slot = 0; slot < SLOTS; slot++)                                                                       \
            is_wrapped |= (function) == name##_wrapper[slot];                                                          \
        is_wrapped;                                                                                                    \
    })

/* Wrap the functions in a context's table. */
void polls_wrap(struct ibv_context *context);
void posts_wrap(struct ibv_context *context);
/* Whether they are wrapped there. */
bool polls_are_wrapped(const struct ibv_context *context);
bool posts_are_wrapped(const struct ibv_context *context);

/* A destroyed object, of `bytes`: its functions, if they were wrapped, report their calls from now on. */
void polls_gone(struct ibv_cq_ex *cq, size_t bytes);
void builders_gone(struct ibv_qp_ex *qp, size_t bytes);
/* Instead of functions that are only called after one that reports. */
void verbs_gone_nothing(void);

#endif
