/*
 * The rkey is wrong. The peer's device belongs to another daemon, or is on another machine, so the cause of its NAK is
 * unknown. The peer is a second process of this program, which uses the daemon at $PEER_SOCKET.
 */
#include "pair.h"

struct endpoint {
    union ibv_gid gid;
    uint64_t address;
    uint32_t qpn, rkey;
};

/* Exchanges endpoints with the peer through descriptors `in` and `out`, and moves the queue pair to RTS. */
static void exchange(struct end *end, int in, int out, struct endpoint *remote)
{
    const struct endpoint local = {gid, address_of(end), end->qp->qp_num, end->mr->rkey};
    check(write(out, &local, sizeof local) != sizeof local || read(in, remote, sizeof *remote) != sizeof *remote, "exchange");
    end->attr.dest_qp_num = remote->qpn;
    end->attr.ah_attr.grh.dgid = remote->gid;
    to_rtr(end, NULL);
    to_rts(end);
    char ready = 1;
    check(write(out, &ready, 1) != 1 || read(in, &ready, 1) != 1, "exchange");
}

int main(int count, char **args)
{
    struct end end = {0};
    struct endpoint remote;
    const int is_peer = count > 1;
    int to_peer[2], from_peer[2];
    if (!is_peer) {
        check(pipe(to_peer) || pipe(from_peer), "pipe");
        if (fork() == 0) {
            check(dup2(to_peer[0], 0) < 0 || dup2(from_peer[1], 1) < 0, "dup2");
            close(to_peer[1]);
            close(from_peer[0]);
            if (getenv("PEER_SOCKET"))
                setenv("USERDMA_SOCKET", getenv("PEER_SOCKET"), 1);
            execl("/proc/self/exe", args[0], "peer", NULL);
            _exit(1);
        }
        close(to_peer[0]);
        close(from_peer[1]);
    }
    open_device();
    make_end(&end);
    exchange(&end, is_peer ? 0 : from_peer[0], is_peer ? 1 : to_peer[1], &remote);
    if (is_peer) {
        /* Ends with end of file, when the parent closes the pipe. */
        char byte;
        (void)!read(0, &byte, 1);
    } else {
        post(&end, IBV_WR_RDMA_WRITE, all_of(&end), remote.address, FAULT_OR(0, remote.rkey)); /* FAULT */
        completion(&end);
        close(to_peer[1]);
        check(wait(NULL) < 0, "wait");
    }
    destroy_end(&end);
    check(ibv_close_device(context), "ibv_close_device");
    return 0;
}
