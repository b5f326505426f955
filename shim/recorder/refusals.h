/*
 * Calls that libibverbs, a provider or librdmacm refuse themselves, without a call of the device (REFUSAL of
 * src/spec/session.ts). The outermost call of a thread that fails so is reported, with the function, the object and the
 * facts of the innermost call that failed with the same error: rdma_create_ep, for example, calls rdma_create_qp.
 */
#ifndef USERDMA_REFUSALS_H
#define USERDMA_REFUSALS_H

#include "../protocol.h"
#include "recorder.h"

#include <errno.h>

/* Calls of this thread that the device has refused. Each library counts them. */
extern TLS uint32_t refusals_of_device;

/* A call begins, while recorder_is_on; refusal_end follows. */
void refusal_begin(void);
/*
 * The call has ended. `error`: 0 or a positive errno; only with an error the rest is used. `fd`: of the context; -1:
 * none. `object` and `facts`: as of the message. Preserves errno.
 */
void refusal_end(const char *function, int error, int fd, uint64_t object, const uint64_t facts[4]);

/* The error of a result: a pointer, or an int that is -1 with errno or an errno. */
#define ERROR_OF_POINTER(result) ((result) ? 0 : errno)
#define ERROR_OF_INT(result) ((result) == 0 ? 0 : (result) > 0 ? (int)(result) : errno)

/*
 * The result of `call`, an expression. `fd`, `object` and the facts (at most 4, evaluated if the call has failed): as of
 * refusal_end.
 */
#define REFUSABLE(function, error_of, fd, object, call, ...)                                                           \
    ({                                                                                                                 \
        const bool is_seen = UNLIKELY(recorder_is_on);                                                                 \
        if (is_seen)                                                                                                   \
            refusal_begin();                                                                                           \
        __typeof__(call) refusable = (call);                                                                           \
        if (is_seen) {                                                                                                 \
            const int refused = error_of(refusable);                                                                   \
            if (UNLIKELY(refused != 0))                                                                                \
                refusal_end(function, refused, (fd), (uint64_t)(object), (const uint64_t[4]){__VA_ARGS__});            \
            else                                                                                                       \
                refusal_end(function, 0, -1, 0, NULL);                                                                 \
        }                                                                                                              \
        refusable;                                                                                                     \
    })

/* ---- of each library ---- */

/* Tells the reader of a refusal, with the caller's stack. `fd`: of the context; -1: none. */
void note_refusal(int fd, const struct userdma_refusal *refusal);

#endif
