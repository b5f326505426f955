/*
 * A peer is slow: its owner waits LIMIT for it, gives the request up, and uses the memory otherwise. With torment of
 * kind `late` (test/system/check/late.test.ts) the request arrives then; without torment it is there at once, and the
 * program passes. With `right` the owner waits until the request has ended. Exit status 1: wrong bytes.
 *
 * `rails`, `same` and `own-read` need a packet that a fault rule delays: torment of kind `late` is about what was told.
 *
 *   late_cases CASE [right]
 */
#include "../../../docs/findings/told.h"

#include <stdbool.h>
#include <time.h>
#include <userdma.h>

enum { LIMIT = 50, OLD = 1, NEW = 2, OTHER = 3, PACKET = 256 };

static bool is_right;

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

/* Whether a completion comes within LIMIT ms; with `right` it waits for it. */
static bool comes(struct end *end)
{
    struct ibv_wc wc;
    const double until = now() + LIMIT;
    while (is_right || now() < until) {
        const int count = ibv_poll_cq(end->cq, 1, &wc);
        check(count < 0, "ibv_poll_cq");
        if (count == 1) {
            check(wc.status != IBV_WC_SUCCESS, ibv_wc_status_str(wc.status));
            return true;
        }
    }
    return false;
}

static void patient(struct end *end)
{
    make_end(end);
    end->attr.timeout = 19; /* 2.1 s */
}

static int differs(const char *bytes, char expected)
{
    for (int i = 0; i < HALF; i++)
        if (bytes[i] != expected) {
            printf("byte %d is of request %d\n", i, bytes[i]);
            return 1;
        }
    return 0;
}

/* The READ of the first request gets what the second one lends. */
static int late_read(void)
{
    struct end owner = {0}, peer = {0};
    open_device();
    patient(&owner);
    patient(&peer);
    connect_ends(&owner, &peer);
    memset(owner.buffer, OLD, HALF);
    tell(&owner, &peer);
    post(&peer, IBV_WR_RDMA_READ, part_of(&peer, 0, HALF), address_of(&owner), owner.mr->rkey);
    const bool has_ended = comes(&peer);
    memset(owner.buffer, NEW, HALF);
    tell(&owner, &peer);
    if (!has_ended)
        completion(&peer);
    const int wrong = differs(peer.buffer, OLD);
    return destroy_pair(&owner, &peer) | wrong;
}

/* A retry over another rail; the WRITE of the first one lands after it. `is_destroyed`: its peer gives the rail up
 * wholly. */
static int late_write(bool is_destroyed)
{
    struct end one = {0}, first = {0}, two = {0}, second = {0};
    open_device();
    patient(&one);
    patient(&first);
    connect_ends(&one, &first);
    patient(&two);
    patient(&second);
    connect_ends(&two, &second);
    two.extra = need(ibv_reg_mr(two.pd, one.buffer, SIZE, ALL_RIGHTS), "ibv_reg_mr");
    memset(first.buffer, OLD, HALF);
    memset(second.buffer, NEW, HALF);
    tell(&one, &first);
    post(&first, IBV_WR_RDMA_WRITE, part_of(&first, 0, HALF), address_of(&one), one.mr->rkey);
    bool has_ended = comes(&first);
    if (!has_ended && is_destroyed) {
        check(ibv_destroy_qp(first.qp), "ibv_destroy_qp");
        first.qp = NULL;
    }
    tell_of(&two, &second, two.extra);
    write_told(&second, two.extra);
    const double until = now() + LIMIT;
    while (now() < until && one.buffer[0] == NEW)
        ;
    const int wrong = differs(one.buffer, NEW);
    if (!has_ended && !is_destroyed)
        completion(&first);
    destroy_end(&one);
    destroy_end(&first);
    return destroy_pair(&two, &second) | wrong;
}

/* A retry over another rail, to one buffer that both peers know without any message of RDMA. `is_same`: both rails send
 * the same data on purpose, which is right. */
static int rails(bool is_same)
{
    struct end one = {0}, first = {0}, two = {0}, second = {0};
    open_device();
    patient(&one);
    patient(&first);
    connect_ends(&one, &first);
    patient(&two);
    patient(&second);
    connect_ends(&two, &second);
    two.extra = need(ibv_reg_mr(two.pd, one.buffer, SIZE, ALL_RIGHTS), "ibv_reg_mr");
    memset(one.buffer, NEW, HALF);
    memset(first.buffer, is_same ? NEW : OLD, PACKET);
    memset(second.buffer, NEW, PACKET);
    post(&first, IBV_WR_RDMA_WRITE, part_of(&first, 0, PACKET), address_of(&one), one.mr->rkey);
    const bool has_ended = comes(&first);
    post(&second, IBV_WR_RDMA_WRITE, part_of(&second, 0, PACKET), address_of(&one), two.extra->rkey);
    completion(&second);
    if (!has_ended)
        completion(&first);
    const int wrong = differs(one.buffer, NEW);
    destroy_end(&one);
    destroy_end(&first);
    return destroy_pair(&two, &second) | wrong;
}

/* The reader gives its READ up, and uses the buffer otherwise. */
static int own_read(void)
{
    struct end owner = {0}, reader = {0};
    open_device();
    patient(&owner);
    patient(&reader);
    connect_ends(&owner, &reader);
    memset(owner.buffer, OLD, HALF);
    post(&reader, IBV_WR_RDMA_READ, part_of(&reader, 0, HALF), address_of(&owner), owner.mr->rkey);
    const bool has_ended = comes(&reader);
    const int unfinished = userdma_expect_finished(reader.buffer, HALF);
    check(unfinished != (userdma_present() && !has_ended), "userdma_expect_finished");
    memset(reader.buffer, OTHER, HALF);
    if (!has_ended)
        completion(&reader);
    const int wrong = differs(reader.buffer, OTHER);
    return destroy_pair(&owner, &reader) | wrong;
}

/* The owner declares what it lends, takes it back, and uses the bytes itself. */
static int declared(void)
{
    struct end owner = {0}, peer = {0};
    open_device();
    patient(&owner);
    patient(&peer);
    connect_ends(&owner, &peer);
    memset(peer.buffer, OLD, HALF);
    const uint64_t lend = userdma_lend(owner.buffer, HALF, USERDMA_WRITE, "request 1");
    post(&peer, IBV_WR_RDMA_WRITE, part_of(&peer, 0, HALF), address_of(&owner), owner.mr->rkey);
    const bool has_ended = comes(&peer);
    userdma_take_back(lend);
    memset(owner.buffer, OTHER, HALF);
    if (!has_ended)
        completion(&peer);
    const int wrong = differs(owner.buffer, OTHER);
    return destroy_pair(&owner, &peer) | wrong;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    is_right = argc == 3 && strcmp(argv[2], "right") == 0;
    if (argc > (is_right ? 3 : 2))
        name = "";
    if (strcmp(name, "read") == 0)
        return late_read();
    if (strcmp(name, "write") == 0)
        return late_write(false);
    if (strcmp(name, "destroyed") == 0)
        return late_write(true);
    if (strcmp(name, "declared") == 0)
        return declared();
    if (strcmp(name, "rails") == 0)
        return rails(false);
    if (strcmp(name, "same") == 0)
        return rails(true);
    if (strcmp(name, "own-read") == 0)
        return own_read();
    fprintf(stderr, "usage: late_cases read|write|destroyed|declared|rails|same|own-read [right]\n");
    return 1;
}
