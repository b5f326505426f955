/*
 * A queue pair is attached to a group that its port has not joined: ibv_attach_mcast tells the adapter, not the switches.
 * Options: --device mlx5_0@127.0.0.1,driver=mlx5,layer=infiniband --device mlx5_1@127.0.0.2,driver=mlx5,layer=infiniband
 */
#include <arpa/inet.h>
#include <rdma/rdma_cma.h>

#include "datagrams.h"

#ifdef FIXED
/* Joins the group 239.1.2.3 with the port of 127.0.0.1 and sets GID and LID of the group; returns the membership. */
static struct rdma_cm_id *join(uint32_t *qkey)
{
    struct sockaddr_in own = {.sin_family = AF_INET}, group = {.sin_family = AF_INET};
    struct rdma_event_channel *channel = need(rdma_create_event_channel(), "rdma_create_event_channel");
    struct rdma_cm_id *id;
    struct rdma_cm_event *event;
    inet_pton(AF_INET, "127.0.0.1", &own.sin_addr);
    inet_pton(AF_INET, "239.1.2.3", &group.sin_addr);
    check(rdma_create_id(channel, &id, NULL, RDMA_PS_UDP), "rdma_create_id");
    check(rdma_bind_addr(id, (struct sockaddr *)&own), "rdma_bind_addr");
    check(rdma_join_multicast(id, (struct sockaddr *)&group, NULL), "rdma_join_multicast");
    check(rdma_get_cm_event(channel, &event), "rdma_get_cm_event");
    gid = event->param.ud.ah_attr.grh.dgid;
    lid = event->param.ud.ah_attr.dlid;
    *qkey = event->param.ud.qkey;
    check(rdma_ack_cm_event(event), "rdma_ack_cm_event");
    return id;
}
#endif

int main(void)
{
    struct datagram_end one = {0}, other = {0};
    int count;
    struct ibv_device **list = need(ibv_get_device_list(&count), "ibv_get_device_list");
    struct ibv_context *receiver;
    uint32_t qkey = QKEY;
    open_device();
    receiver = context;
#ifdef FIXED
    struct rdma_cm_id *member = join(&qkey);
#else
    gid = (union ibv_gid){.raw = {0xff, 0x12, 0x40, 0x1b, 0xff, 0xff, [15] = 1}};
    lid = 0xc005;
#endif
    make_datagram_end(&other, qkey);
    check(ibv_attach_mcast(other.end.qp, &gid, lid), "ibv_attach_mcast");
    post_receive(&other.end, all_of(&other.end));
    context = need(ibv_open_device(list[count - 1]), "ibv_open_device");
    make_datagram_end(&one, qkey);
    struct ibv_sge sge = {.addr = address_of(&one.end), .length = 64, .lkey = one.end.mr->lkey};
    struct ibv_send_wr *bad, wr = {.wr_id = 1, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND};
    wr.wr.ud.ah = one.ah;
    wr.wr.ud.remote_qpn = 0xffffff;
    wr.wr.ud.remote_qkey = qkey;
    check(ibv_post_send(one.end.qp, &wr, &bad), "ibv_post_send"); /* FAULT */
    completion(&one.end);
    check(ibv_detach_mcast(other.end.qp, &gid, lid), "ibv_detach_mcast");
    destroy_datagram_end(&one);
    check(ibv_close_device(context), "ibv_close_device");
    destroy_datagram_end(&other);
    check(ibv_close_device(receiver), "ibv_close_device");
    ibv_free_device_list(list);
#ifdef FIXED
    struct rdma_event_channel *channel = member->channel;
    check(rdma_destroy_id(member), "rdma_destroy_id");
    rdma_destroy_event_channel(channel);
#endif
    return 0;
}
