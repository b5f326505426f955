/*
 * Functions of providers' own libraries, around the tables of libibverbs: they create extended queue pairs and CQs, and
 * give a program the memory of a queue or a doorbell. Posts and polls by that memory are not seen.
 */
#define _GNU_SOURCE
#include "verbs.h"

#include <errno.h>
#include <string.h>

/* Also of a library that was loaded with RTLD_LOCAL, as by an extension of Python. */
static void *find(const char *name)
{
    static const char *const libraries[][2] = {
        {"mlx5dv_", "libmlx5.so.1"}, {"efadv_", "libefa.so.1"},   {"hnsdv_", "libhns.so.1"},
        {"mlx4dv_", "libmlx4.so.1"}, {"manadv_", "libmana.so.1"},
    };
    void *found = dlsym(RTLD_NEXT, name);
    for (size_t i = 0; !found && i < sizeof libraries / sizeof libraries[0]; i++) {
        if (strncmp(name, libraries[i][0], strlen(libraries[i][0])) != 0)
            continue;
        void *library = NEXT(dlopen)(libraries[i][1], RTLD_LAZY | RTLD_NOLOAD);
        if (!library)
            break;
        found = dlsym(library, name);
        NEXT(dlclose)(library);
    }
    return found;
}

#define CREATES(name, type, attributes_type, create, function)                                                         \
    EXPORT type name(struct ibv_context *context, attributes_type *attributes, void *own, uint32_t bytes);             \
    type name(struct ibv_context *context, attributes_type *attributes, void *own, uint32_t bytes)                     \
    {                                                                                                                  \
        function *original = (function *)find(#name);                                                                  \
        return original ? create(#name, original, context, attributes, own, bytes) : verbs_missing();                  \
    }
#define CREATES_QP(name)                                                                                               \
    CREATES(name, struct ibv_qp *, struct ibv_qp_init_attr_ex, verbs_create_own_qp, create_own_qp_function)
#define CREATES_CQ(name)                                                                                               \
    CREATES(name, struct ibv_cq_ex *, struct ibv_cq_init_attr_ex, verbs_create_own_cq, create_own_cq_function)
CREATES_QP(mlx5dv_create_qp)
CREATES_QP(efadv_create_qp_ex)
CREATES_QP(hnsdv_create_qp)
CREATES_CQ(mlx5dv_create_cq)
CREATES_CQ(efadv_create_cq)

/* Functions with up to four arguments of a word each, and a result of an int. */
typedef int direct_function(uintptr_t, uintptr_t, uintptr_t, uintptr_t);

#define DIRECT(name)                                                                                                   \
    EXPORT int name(uintptr_t a, uintptr_t b, uintptr_t c, uintptr_t d);                                               \
    int name(uintptr_t a, uintptr_t b, uintptr_t c, uintptr_t d)                                                       \
    {                                                                                                                  \
        if (requests_are_noted)                                                                                        \
            note_direct(#name);                                                                                        \
        direct_function *original = (direct_function *)find(#name);                                                    \
        return original ? original(a, b, c, d) : ENOSYS;                                                               \
    }

DIRECT(mlx5dv_init_obj)
DIRECT(mlx4dv_init_obj)
DIRECT(manadv_init_obj)
DIRECT(efadv_query_qp_wqs)
DIRECT(efadv_query_cq)
