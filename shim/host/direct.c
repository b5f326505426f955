/*
 * Programs that take queues around libibverbs' tables: the functions of providers that give a program the memory of a
 * queue or a doorbell. They are recorded, so that the observer can say what it does not see.
 */
#define _GNU_SOURCE
#include "host.h"

#include <errno.h>

/* Functions with up to four arguments of a word each, and a result of an int. */
typedef int direct_function(uintptr_t, uintptr_t, uintptr_t, uintptr_t);

#define DIRECT(name)                                                                                                   \
    EXPORT int name(uintptr_t a, uintptr_t b, uintptr_t c, uintptr_t d);                                               \
    int name(uintptr_t a, uintptr_t b, uintptr_t c, uintptr_t d)                                                       \
    {                                                                                                                  \
        record_text(USERDMA_RECORD_DIRECT, -1, 0, #name);                                                              \
        direct_function *original = (direct_function *)dlsym(RTLD_NEXT, #name);                                        \
        return original ? original(a, b, c, d) : ENOSYS;                                                               \
    }

DIRECT(mlx5dv_init_obj)
DIRECT(mlx4dv_init_obj)
DIRECT(manadv_init_obj)
DIRECT(efadv_query_qp_wqs)
DIRECT(efadv_query_cq)
