/*
 * A program imports a context, a protection domain, a region and device memory of another program (ibv_import_…), and
 * writes to the other one's memory.
 *
 *   imports DEVICE        starts itself as the importer
 */
#define _GNU_SOURCE
#include "../endpoint.h"
#include <sys/wait.h>

#define RIGHTS (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE)
#define DM_BYTES 64

static uint8_t memory[4096] __attribute__((aligned(4096)));

static int take(char **argv)
{
    struct ibv_context *context = ibv_import_device(atoi(argv[2]));
    NEED(context, "ibv_import_device: %s", strerror(errno));
    struct ibv_pd *pd = ibv_import_pd(context, (uint32_t)atoi(argv[3]));
    struct ibv_mr *mr = pd ? ibv_import_mr(pd, (uint32_t)atoi(argv[4])) : NULL;
    struct ibv_dm *dm = ibv_import_dm(context, (uint32_t)atoi(argv[5]));
    NEED(mr && dm, "ibv_import_pd, ibv_import_mr or ibv_import_dm: %s", strerror(errno));
    uint64_t value = 0;
    NEED(ibv_memcpy_from_dm(&value, dm, 0, sizeof value) == 0, "ibv_memcpy_from_dm: %s", strerror(errno));
    printf("imported device memory has %d, the region %zu bytes\n", (int)value, mr->length);

    struct endpoint one, other;
    create_endpoint(&one, context, &default_options, 4096, 1);
    create_endpoint(&other, context, &default_options, 4096, 2);
    NEED(ibv_destroy_qp(other.qp) == 0, "ibv_destroy_qp: %s", strerror(errno));
    other.pd = pd;
    create_qp(&other);
    const struct address ends[] = {address_of(&one), address_of(&other)};
    connect_to(&one, &ends[1], &default_options);
    connect_to(&other, &ends[0], &default_options);
    one.buffer[0] = 7;
    struct ibv_sge sge = {(uintptr_t)one.buffer, 1, one.mr->lkey};
    struct ibv_send_wr send = {.sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_RDMA_WRITE, .send_flags = IBV_SEND_SIGNALED};
    struct ibv_send_wr *bad;
    send.wr.rdma.remote_addr = strtoull(argv[6], NULL, 0);
    send.wr.rdma.rkey = mr->rkey;
    NEED(ibv_post_send(one.qp, &send, &bad) == 0, "ibv_post_send: %s", strerror(errno));
    struct ibv_wc wc;
    while (next_completion(&one, &wc) == 0)
        ;
    printf("WRITE: %s\n", ibv_wc_status_str(wc.status));
    /* otherwise it would keep the exporter's protection domain in use */
    NEED(ibv_destroy_qp(other.qp) == 0, "ibv_destroy_qp: %s", strerror(errno));
    ibv_unimport_mr(mr);
    ibv_unimport_dm(dm);
    fflush(stdout);
    return 0;
}

int main(int argc, char **argv)
{
    NEED((argc == 7 && strcmp(argv[1], "take") == 0) || argc == 2, "usage: imports DEVICE");
    if (argc == 7)
        return take(argv);
    struct ibv_context *context = open_named(argv[1]);
    struct ibv_pd *pd = ibv_alloc_pd(context);
    struct ibv_mr *mr = pd ? ibv_reg_mr(pd, memory, sizeof memory, RIGHTS) : NULL;
    struct ibv_alloc_dm_attr attr = {.length = DM_BYTES};
    struct ibv_dm *dm = ibv_alloc_dm(context, &attr);
    const uint64_t value = 5;
    NEED(mr && dm && ibv_memcpy_to_dm(dm, 0, &value, sizeof value) == 0, "setting up: %s", strerror(errno));
    char numbers[5][32];
    const int fd = dup(context->cmd_fd);
    snprintf(numbers[0], sizeof *numbers, "%d", fd);
    snprintf(numbers[1], sizeof *numbers, "%u", pd->handle);
    snprintf(numbers[2], sizeof *numbers, "%u", mr->handle);
    snprintf(numbers[3], sizeof *numbers, "%u", dm->handle);
    snprintf(numbers[4], sizeof *numbers, "%p", (void *)memory);
    const pid_t child = fork();
    NEED(child >= 0, "fork: %s", strerror(errno));
    if (child == 0) {
        execl("/proc/self/exe", argv[0], "take", numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], NULL);
        fail("exec: %s", strerror(errno));
    }
    int status;
    NEED(waitpid(child, &status, 0) == child && status == 0, "the importer has failed");
    printf("the exporter's memory has %d\n", memory[0]);
    NEED(ibv_free_dm(dm) == 0 && ibv_dereg_mr(mr) == 0 && ibv_dealloc_pd(pd) == 0 && ibv_close_device(context) == 0,
         "clean-up: %s", strerror(errno));
    return 0;
}
