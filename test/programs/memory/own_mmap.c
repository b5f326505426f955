/*
 * A program with its own mmap, as the memory hooks of UCX and Open MPI are: the preload library learns of no mapping.
 * Its datagram queue pair on an EFA device maps one page of doorbells three times; each of the three must wake the
 * daemon.
 *
 *   own_mmap DEVICE
 */
#define _GNU_SOURCE
#include "../endpoint.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

#define PAGE 4096
#define DOORBELLS_OFFSET 0x10000000000 /* ContextFile.doorbells in src/spec/session.ts */
#define WRITE_PROTECTED (1ull << 57)   /* of an entry in /proc/self/pagemap */
#define QKEY 0x1234
#define GRH_BYTES 40
#define MAPPINGS 3 /* of the completion queue, the send queue and the receive queue */

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    return (void *)syscall(SYS_mmap, address, length, protection, flags, fd, offset);
}

/* How many mappings of doorbells there are, and how many of them are protected, because the daemon sleeps. */
static int count_mappings(int *protected)
{
    int count = 0;
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "r");
    const int pagemap = open("/proc/self/pagemap", O_RDONLY);
    NEED(maps && pagemap >= 0, "/proc/self: %s", strerror(errno));
    *protected = 0;
    while (fgets(line, sizeof line, maps)) {
        unsigned long start, offset;
        uint64_t entry;
        if (sscanf(line, "%lx-%*x %*s %lx", &start, &offset) != 2 || offset < DOORBELLS_OFFSET)
            continue;
        count++;
        NEED(pread(pagemap, &entry, sizeof entry, (off_t)(start / PAGE * sizeof entry)) == sizeof entry, "pagemap: %s",
             strerror(errno));
        *protected += (entry & WRITE_PROTECTED) != 0;
    }
    fclose(maps);
    close(pagemap);
    return count;
}

int main(int argc, char **argv)
{
    NEED(argc == 2, "usage: own_mmap DEVICE");
    struct ibv_context *context = open_named(argv[1]);
    struct ibv_pd *pd = ibv_alloc_pd(context);
    static uint8_t buffer[2 * PAGE];
    struct ibv_mr *mr = ibv_reg_mr(pd, buffer, sizeof buffer, IBV_ACCESS_LOCAL_WRITE);
    struct ibv_cq *cq = ibv_create_cq(context, 16, NULL, NULL, 0);
    NEED(pd && mr && cq, "PD, MR, CQ: %s", strerror(errno));
    struct ibv_qp_init_attr init = {
        .send_cq = cq,
        .recv_cq = cq,
        .cap = {.max_send_wr = 4, .max_recv_wr = 4, .max_send_sge = 1, .max_recv_sge = 1},
        .qp_type = IBV_QPT_UD,
    };
    struct ibv_qp *qp = ibv_create_qp(pd, &init);
    NEED(qp, "ibv_create_qp: %s", strerror(errno));
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qkey = QKEY};
    NEED(ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY) == 0, "to INIT: %s",
         strerror(errno));
    attr.qp_state = IBV_QPS_RTR;
    NEED(ibv_modify_qp(qp, &attr, IBV_QP_STATE) == 0, "to RTR: %s", strerror(errno));
    attr.qp_state = IBV_QPS_RTS;
    NEED(ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_SQ_PSN) == 0, "to RTS: %s", strerror(errno));
    struct ibv_ah_attr address = {.is_global = 1, .port_num = 1};
    NEED(ibv_query_gid(context, 1, 0, &address.grh.dgid) == 0, "GID 0: %s", strerror(errno));
    struct ibv_ah *ah = ibv_create_ah(pd, &address);
    NEED(ah, "ibv_create_ah: %s", strerror(errno));

    /* The daemon looks for mappings after messages of the program, before it sleeps. */
    const time_t end = time(NULL) + 20;
    for (int protected = 0; protected < MAPPINGS;) {
        struct ibv_port_attr port;
        NEED(ibv_query_port(context, 1, &port) == 0, "ibv_query_port: %s", strerror(errno));
        const int count = count_mappings(&protected);
        NEED(count == MAPPINGS, "%d mappings of doorbells", count);
        NEED(time(NULL) < end, "%d of %d mappings are watched", protected, count);
    }

    struct ibv_sge in = {(uintptr_t)buffer, PAGE, mr->lkey}, out = {(uintptr_t)buffer + PAGE, 8, mr->lkey};
    struct ibv_recv_wr *bad_receive, receive = {.wr_id = 1, .sg_list = &in, .num_sge = 1};
    struct ibv_send_wr *bad_send, send = {
                                      .wr_id = 2,
                                      .sg_list = &out,
                                      .num_sge = 1,
                                      .opcode = IBV_WR_SEND,
                                      .send_flags = IBV_SEND_SIGNALED,
                                      .wr.ud = {.ah = ah, .remote_qpn = qp->qp_num, .remote_qkey = QKEY},
                                  };
    memcpy(buffer + PAGE, "message", 8);
    NEED(ibv_post_recv(qp, &receive, &bad_receive) == 0, "ibv_post_recv");
    NEED(ibv_post_send(qp, &send, &bad_send) == 0, "ibv_post_send");
    for (int found = 0; found < 2;) {
        struct ibv_wc wc;
        const int polled = ibv_poll_cq(cq, 1, &wc);
        NEED(polled >= 0 && (polled == 0 || wc.status == IBV_WC_SUCCESS), "ibv_poll_cq: %d", polled);
        NEED(time(NULL) < end + 20, "%d completions", found);
        found += polled;
    }
    NEED(memcmp(buffer + GRH_BYTES, "message", 8) == 0, "another message");
    printf("good\n");
    return 0;
}
