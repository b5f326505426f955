/*
 * Creates many objects of one class, and prints their number, the error if there are fewer than wanted, and the number
 * of mappings of rings that the program has. Then destroys all, creates all, destroys every third, and creates those.
 * Then waits for the end of standard input.
 *
 *   many_objects cq|srq|qp|member COUNT [ENTRIES]   ENTRIES: of a queue, default 1
 */
#include "../endpoint.h"

#define USAGE "usage: many_objects cq|srq|qp|member COUNT [ENTRIES]"

static struct ibv_context *context;
static struct ibv_pd *pd;
static struct ibv_cq *cq;
static uint32_t entries = 1;

static void *create_one_cq(void)
{
    return ibv_create_cq(context, (int)entries, NULL, NULL, 0);
}

static int destroy_one_cq(void *object)
{
    return ibv_destroy_cq(object);
}

static void *create_one_srq(void)
{
    struct ibv_srq_init_attr attr = {.attr = {.max_wr = entries, .max_sge = 1}};
    return ibv_create_srq(pd, &attr);
}

static int destroy_one_srq(void *object)
{
    return ibv_destroy_srq(object);
}

static void *create_one_qp(void)
{
    struct ibv_qp_init_attr attr = {.send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_RC};
    attr.cap.max_send_wr = attr.cap.max_recv_wr = entries;
    attr.cap.max_send_sge = attr.cap.max_recv_sge = 1;
    return ibv_create_qp(pd, &attr);
}

static int destroy_one_qp(void *object)
{
    return ibv_destroy_qp(object);
}

/* A UD queue pair in a multicast group, ff0e::1. */
static union ibv_gid group = {.raw = {0xff, 0x0e, [15] = 1}};

static void *create_one_member(void)
{
    struct ibv_qp_init_attr attr = {.send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_UD};
    attr.cap.max_send_wr = attr.cap.max_recv_wr = attr.cap.max_send_sge = attr.cap.max_recv_sge = 1;
    struct ibv_qp *qp = ibv_create_qp(pd, &attr);
    NEED(qp, "ibv_create_qp: %s", strerror(errno));
    const int error = ibv_attach_mcast(qp, &group, 0);
    if (error == 0)
        return qp;
    ibv_destroy_qp(qp);
    errno = error;
    return NULL;
}

static int destroy_one_member(void *object)
{
    const int error = ibv_detach_mcast(object, &group, 0);
    return error ? error : ibv_destroy_qp(object);
}

static const struct kind {
    const char *name;
    void *(*create)(void);
    int (*destroy)(void *object);
} kinds[] = {
    {"cq", create_one_cq, destroy_one_cq},
    {"srq", create_one_srq, destroy_one_srq},
    {"qp", create_one_qp, destroy_one_qp},
    {"member", create_one_member, destroy_one_member},
};

static int mappings_of_rings(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    NEED(maps, "/proc/self/maps: %s", strerror(errno));
    char line[512];
    int count = 0;
    while (fgets(line, sizeof line, maps))
        count += strstr(line, "memfd:userdma-context") != NULL;
    fclose(maps);
    return count;
}

/* Creates the missing ones of `count` objects, and prints the result. */
static void create_missing(const struct kind *kind, void **objects, int count)
{
    int existing = 0, error = 0;
    for (int i = 0; i < count; i++) {
        if (!objects[i] && !error) {
            objects[i] = kind->create();
            error = objects[i] ? 0 : errno;
        }
        existing += objects[i] != NULL;
    }
    if (error)
        printf("%d of %d: %s\n", existing, count, strerror(error));
    else
        printf("%d of %d, %d mappings\n", existing, count, mappings_of_rings());
    fflush(stdout);
}

static void destroy_every(int step, const struct kind *kind, void **objects, int count)
{
    for (int i = 0; i < count; i += step) {
        if (!objects[i])
            continue;
        const int error = kind->destroy(objects[i]);
        NEED(error == 0, "destroy: %s", strerror(error));
        objects[i] = NULL;
    }
}

int main(int argc, char **argv)
{
    const struct kind *kind = NULL;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (argc > 1 && strcmp(argv[1], kinds[i].name) == 0)
            kind = &kinds[i];
    const int count = argc > 2 ? atoi(argv[2]) : 0;
    NEED(kind && count > 0 && argc < 5, USAGE);
    if (argc > 3)
        entries = (uint32_t)atoi(argv[3]);
    int device_count;
    struct ibv_device **devices = ibv_get_device_list(&device_count);
    NEED(device_count > 0, "no device");
    context = ibv_open_device(devices[0]);
    NEED(context, "ibv_open_device: %s", strerror(errno));
    pd = ibv_alloc_pd(context);
    cq = ibv_create_cq(context, 1, NULL, NULL, 0);
    NEED(pd && cq, "no protection domain or completion queue: %s", strerror(errno));
    void **objects = calloc((size_t)count, sizeof *objects);
    NEED(objects, "calloc: %s", strerror(errno));
    create_missing(kind, objects, count);
    destroy_every(1, kind, objects, count);
    create_missing(kind, objects, count);
    destroy_every(3, kind, objects, count);
    create_missing(kind, objects, count);
    while (getchar() != EOF)
        ;
    return 0;
}
