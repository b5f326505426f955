/*
 * Stripes over two connections. What has failed on one is done again on the other, and the exit status is 0: but the
 * failed one is posted to in every later round. With -a it is connected anew.
 *
 *   rails [-a] [-d DEVICE [-s DEVICE]]
 *
 * -s: the device of the second connection.
 */
#include "../endpoint.h"

#define RAILS 2
#define ROUNDS 24

static struct endpoint from[RAILS], to[RAILS];

/* Whether the WRITE succeeds. */
static bool writes(int rail)
{
    struct ibv_sge source = {.addr = (uintptr_t)from[rail].buffer, .length = 64, .lkey = from[rail].mr->lkey};
    struct ibv_send_wr *bad, write = {
                                 .sg_list = &source,
                                 .num_sge = 1,
                                 .opcode = IBV_WR_RDMA_WRITE,
                                 .send_flags = IBV_SEND_SIGNALED,
                                 .wr.rdma = {.remote_addr = (uintptr_t)to[rail].buffer, .rkey = to[rail].mr->rkey},
                             };
    struct ibv_wc wc;
    NEED(ibv_post_send(from[rail].qp, &write, &bad) == 0, "ibv_post_send: %s", strerror(errno));
    while (next_completion(&from[rail], &wc) == 0)
        ;
    return wc.status == IBV_WC_SUCCESS;
}

int main(int count, char **arguments)
{
    struct options options = default_options;
    bool connects_anew = false;
    const char *second = NULL;
    int letter;
    while ((letter = getopt(count, arguments, "ad:s:")) != -1)
        switch (letter) {
        case 'a': connects_anew = true; break;
        case 'd': options.device = optarg; break;
        case 's': second = optarg; break;
        default: fail("usage: %s [-a] [-d DEVICE [-s DEVICE]]", arguments[0]);
        }
    struct ibv_context *contexts[RAILS] = {open_named(options.device)};
    contexts[1] = second ? open_named(second) : contexts[0];
    for (int rail = 0; rail < RAILS; rail++)
        create_pair(&from[rail], &to[rail], contexts[rail], &options);
    for (int round = 0; round < ROUNDS; round++)
        for (int rail = 0; rail < RAILS; rail++) {
            if (writes(rail))
                continue;
            NEED(writes(!rail), "both rails have failed");
            if (!connects_anew)
                continue;
            destroy_endpoint(&from[rail]);
            destroy_endpoint(&to[rail]);
            create_pair(&from[rail], &to[rail], contexts[rail], &options);
        }
    for (int rail = 0; rail < RAILS; rail++) {
        destroy_endpoint(&from[rail]);
        destroy_endpoint(&to[rail]);
    }
    if (second)
        NEED(ibv_close_device(contexts[1]) == 0, "ibv_close_device: %s", strerror(errno));
    NEED(ibv_close_device(contexts[0]) == 0, "ibv_close_device: %s", strerror(errno));
    return 0;
}
