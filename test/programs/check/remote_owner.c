/*
 * Two programs of two daemons, for `userdma check`: `owner PORT` frees a registered block, and the peer of its queue
 * pair accesses it afterwards: `peer PORT read|write`. They exchange addresses over TCP.
 */
#include "../../../docs/findings/pair.h"

#include <arpa/inet.h>
#include <stdbool.h>
#include <sys/socket.h>

struct side {
    uint32_t number, key;
    uint64_t block;
    union ibv_gid gid;
};

/* The connection between the two; the owner may still be starting. */
static int connected(bool is_owner, const char *port)
{
    const struct sockaddr_in address = {.sin_family = AF_INET,
                                        .sin_port = htons((uint16_t)atoi(port)),
                                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const struct sockaddr *to = (const struct sockaddr *)&address;
    if (is_owner) {
        const int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
        setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        check(bind(listener, to, sizeof address), "bind");
        check(listen(listener, 1), "listen");
        return accept(listener, NULL, NULL);
    }
    for (int attempts = 0; attempts < 1000; attempts++, usleep(20000)) {
        const int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, to, sizeof address) == 0)
            return fd;
        close(fd);
    }
    return -1;
}

static void exchange(int fd, const struct side *own, struct side *peer)
{
    check(send(fd, own, sizeof *own, MSG_NOSIGNAL) == sizeof *own ? 0 : -1, "send");
    check(recv(fd, peer, sizeof *peer, MSG_WAITALL) == sizeof *peer ? 0 : -1, "recv");
}

int main(int count, char **arguments)
{
    if (count != 4) {
        fprintf(stderr, "usage: remote_owner owner|peer PORT read|write\n");
        return 1;
    }
    const bool is_owner = strcmp(arguments[1], "owner") == 0;
    const int fd = connected(is_owner, arguments[2]);
    struct end end = {0};
    open_device();
    make_end(&end);
    char *block = malloc(SIZE);
    struct ibv_mr *mr = need(ibv_reg_mr(end.pd, block, SIZE, ALL_RIGHTS), "ibv_reg_mr");
    const struct side own = {end.qp->qp_num, mr->rkey, (uintptr_t)block, gid};
    struct side peer;
    exchange(fd, &own, &peer);
    end.attr.ah_attr.grh.dgid = peer.gid;
    end.attr.dest_qp_num = peer.number;
    to_rtr(&end, NULL);
    to_rts(&end);
    if (is_owner)
        free(block); /* GIVEN */
    exchange(fd, &own, &peer);
    if (!is_owner) {
        post(&end, strcmp(arguments[3], "read") == 0 ? IBV_WR_RDMA_READ : IBV_WR_RDMA_WRITE, all_of(&end), peer.block,
             peer.key);
        completion(&end);
    }
    exchange(fd, &own, &peer);
    check(ibv_dereg_mr(mr), "ibv_dereg_mr");
    destroy_end(&end);
    check(ibv_close_device(context), "ibv_close_device");
    if (!is_owner)
        free(block);
    return 0;
}
