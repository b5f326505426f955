/*
 * The rkey is wrong, and the peer's device is of another daemon, or on another machine, so the cause of its NAK is not
 * known. The peer is a second process of this program, with the daemon at $PEER_SOCKET.
 */
#include "pair.h"

struct place {
    union ibv_gid gid;
    uint64_t address;
    uint32_t qpn, rkey;
};

static void exchange(struct end *end, int in, int out, struct place *theirs)
{
    const struct place own = {gid, address_of(end), end->qp->qp_num, end->mr->rkey};
    check(write(out, &own, sizeof own) != sizeof own || read(in, theirs, sizeof *theirs) != sizeof *theirs, "exchange");
    end->attr.dest_qp_num = theirs->qpn;
    end->attr.ah_attr.grh.dgid = theirs->gid;
    to_rtr(end, NULL);
    to_rts(end);
    char ready = 1;
    check(write(out, &ready, 1) != 1 || read(in, &ready, 1) != 1, "exchange");
}

int main(int count, char **args)
{
    struct end end = {0};
    struct place theirs;
    const int is_peer = count > 1;
    int down[2], up[2];
    if (!is_peer) {
        check(pipe(down) || pipe(up), "pipe");
        if (fork() == 0) {
            check(dup2(down[0], 0) < 0 || dup2(up[1], 1) < 0, "dup2");
            close(down[1]);
            close(up[0]);
            if (getenv("PEER_SOCKET"))
                setenv("USERDMA_SOCKET", getenv("PEER_SOCKET"), 1);
            execl("/proc/self/exe", args[0], "peer", NULL);
            _exit(1);
        }
        close(down[0]);
        close(up[1]);
    }
    open_device();
    make_end(&end);
    exchange(&end, is_peer ? 0 : up[0], is_peer ? 1 : down[1], &theirs);
    char over;
    if (is_peer) {
        (void)!read(0, &over, 1);
    } else {
        post(&end, IBV_WR_RDMA_WRITE, all_of(&end), theirs.address, FAULT_OR(0, theirs.rkey)); /* FAULT */
        completion(&end);
        close(down[1]);
        check(wait(NULL) < 0, "wait");
    }
    destroy_end(&end);
    check(ibv_close_device(context), "ibv_close_device");
    return 0;
}
