/*
 * Two queue pairs of one process, and one SEND into memory that the program has not written: a small program for
 * debuggers and sanitizers.
 *
 *   loopback [-d DEVICE] [-g GID-INDEX]
 */
#include "endpoint.h"

#define LENGTH 10000

int main(int count, char **arguments)
{
    struct options options = default_options;
    int letter;
    while ((letter = getopt(count, arguments, "d:g:")) != -1)
        switch (letter) {
        case 'd': options.device = optarg; break;
        case 'g': options.gid_index = atoi(optarg); break;
        default: fail("usage: %s [-d DEVICE] [-g GID-INDEX]", arguments[0]);
        }
    struct ibv_context *context = open_named(options.device);
    struct endpoint from, to;
    create_endpoint(&from, context, &options, LENGTH, 1);
    create_endpoint(&to, context, &options, LENGTH, 2);
    const struct address ends[] = {address_of(&from), address_of(&to)};
    connect_to(&from, &ends[1], &options);
    connect_to(&to, &ends[0], &options);

    uint8_t *unwritten = malloc(LENGTH);
    struct ibv_mr *mr = ibv_reg_mr(to.pd, unwritten, LENGTH, IBV_ACCESS_LOCAL_WRITE);
    NEED(unwritten && mr, "ibv_reg_mr: %s", strerror(errno));
    for (int i = 0; i < LENGTH; i++)
        from.buffer[i] = (uint8_t)(i * 7);
    struct ibv_sge target = {.addr = (uintptr_t)unwritten, .length = LENGTH, .lkey = mr->lkey};
    struct ibv_sge source = {.addr = (uintptr_t)from.buffer, .length = LENGTH, .lkey = from.mr->lkey};
    struct ibv_recv_wr receive = {.sg_list = &target, .num_sge = 1}, *bad_receive;
    struct ibv_send_wr send = {
        .sg_list = &source, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED};
    struct ibv_send_wr *bad_send;
    NEED(ibv_post_recv(to.qp, &receive, &bad_receive) == 0, "ibv_post_recv: %s", strerror(errno));
    NEED(ibv_post_send(from.qp, &send, &bad_send) == 0, "ibv_post_send: %s", strerror(errno));
    struct endpoint *const completing_ends[] = {&to, &from};
    for (int i = 0; i < 2; i++) {
        struct ibv_wc wc;
        while (next_completion(completing_ends[i], &wc) == 0)
            ;
        NEED(wc.status == IBV_WC_SUCCESS, "a completion says: %s", ibv_wc_status_str(wc.status));
    }
    for (int i = 0; i < LENGTH; i++)
        NEED(unwritten[i] == (uint8_t)(i * 7), "byte %d is %d", i, unwritten[i]);
    ibv_dereg_mr(mr);
    free(unwritten);
    destroy_endpoint(&from);
    destroy_endpoint(&to);
    NEED(ibv_close_device(context) == 0, "ibv_close_device: %s", strerror(errno));
    printf("%d bytes arrived\n", LENGTH);
    return 0;
}
