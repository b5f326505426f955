/*
 * The reply to an earlier request for a connection comes late, and configures the queue pair of the next request: it
 * names a queue pair that belongs to the connection before.
 */
#include "pair.h"

/* The client gives up, and asks again with a new queue pair; the server connects a new one to it. */
static void replace(struct end *end)
{
    check(ibv_destroy_qp(end->qp), "ibv_destroy_qp");
    struct ibv_qp_init_attr init = small_qp();
    init.send_cq = init.recv_cq = end->cq;
    create_queue_pair(end, init);
    to_init(end);
    end->attr.dest_qp_num = 0;
}

int main(void)
{
    struct end client = {0}, server = {0};
    open_device();
    make_end(&client);
    make_end(&server);
#ifndef FIXED
    const uint32_t early = server.qp->qp_num;
#endif
    to_rtr(&server, &client);
    replace(&client);
    replace(&server);
    to_rtr(&server, &client);
#ifndef FIXED
    client.attr.dest_qp_num = early;
#endif
    to_rtr(&client, &server); /* FAULT */
    return destroy_pair(&client, &server);
}
