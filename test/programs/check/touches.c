/*
 * One device and two queue pairs, of which the second one's buffer is accessed in each way, for `userdma check --who`:
 * a SEND arrives in it, the program changes it, and a WRITE, a READ and a FETCH_ADD of the peer follow. The region is
 * the second of the process, and its bytes have the name "target".
 *
 *   touches [-d DEVICE] [-g GID-INDEX]
 */
#include "../endpoint.h"

#include <userdma.h>

#define LENGTH 64

static void wait_for(struct endpoint *end, uint64_t wr_id)
{
    struct ibv_wc wc;
    while (next_completion(end, &wc) == 0)
        ;
    NEED(wc.status == IBV_WC_SUCCESS && wc.wr_id == wr_id, "wr_id %lu: %s", (unsigned long)wc.wr_id,
         ibv_wc_status_str(wc.status));
}

static void post(struct endpoint *from, struct endpoint *to, enum ibv_wr_opcode opcode, uint64_t wr_id)
{
    bool is_atomic = opcode == IBV_WR_ATOMIC_FETCH_AND_ADD;
    struct ibv_sge local = {
        .addr = (uintptr_t)from->buffer, .length = is_atomic ? 8 : LENGTH, .lkey = from->mr->lkey};
    struct ibv_send_wr request = {
        .wr_id = wr_id, .sg_list = &local, .num_sge = 1, .opcode = opcode, .send_flags = IBV_SEND_SIGNALED};
    struct ibv_send_wr *bad;
    if (is_atomic) {
        request.wr.atomic.remote_addr = (uintptr_t)to->buffer + 8;
        request.wr.atomic.rkey = to->mr->rkey;
        request.wr.atomic.compare_add = 1;
    } else {
        request.wr.rdma.remote_addr = (uintptr_t)to->buffer;
        request.wr.rdma.rkey = to->mr->rkey;
    }
    NEED(ibv_post_send(from->qp, &request, &bad) == 0, "ibv_post_send: %s", strerror(errno));
    wait_for(from, wr_id);
}

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
    create_endpoint(&from, context, &options, 4096, 1);
    create_endpoint(&to, context, &options, 4096, 2);
    const struct address ends[] = {address_of(&from), address_of(&to)};
    connect_to(&from, &ends[1], &options);
    connect_to(&to, &ends[0], &options);
    memset(from.buffer, 1, LENGTH);
    userdma_name(to.buffer, LENGTH, "target");

    struct ibv_sge target = {.addr = (uintptr_t)to.buffer, .length = LENGTH, .lkey = to.mr->lkey};
    struct ibv_recv_wr receive = {.wr_id = 6, .sg_list = &target, .num_sge = 1}, *bad;
    NEED(ibv_post_recv(to.qp, &receive, &bad) == 0, "ibv_post_recv: %s", strerror(errno));
    post(&from, &to, IBV_WR_SEND, 7);
    wait_for(&to, 6);
    to.buffer[10] = 2;
    post(&from, &to, IBV_WR_RDMA_WRITE, 8);
    post(&from, &to, IBV_WR_RDMA_READ, 9);
    post(&from, &to, IBV_WR_ATOMIC_FETCH_AND_ADD, 10);
    destroy_endpoint(&from);
    destroy_endpoint(&to);
    NEED(ibv_close_device(context) == 0, "ibv_close_device: %s", strerror(errno));
    return 0;
}
