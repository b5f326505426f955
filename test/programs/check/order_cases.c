/*
 * Mistakes that most devices show often, for `--torment-search` of programs that fail without torment, and correct
 * counterparts (-right). Each line names the wrong assumption. With -DSRD the queue pairs are those of SRD.
 *
 *   order_cases two | two-right             a SEND tells that a READ of another queue pair is done
 *   order_cases one | one-right             the same on one queue pair, without IBV_SEND_FENCE
 *   order_cases written | written-right     a WRITE is there when a SEND of another queue pair comes (RC)
 *   order_cases answer | answer-right       the first completion is that of the answer
 *   order_cases slow                        a message takes a millisecond: no order of requests helps
 *   order_cases wrong                       fails whatever the order is
 *
 * If the assumption fails, the program prints a message and exits with status 1.
 */
#include "../../../docs/findings/pair.h"
#include <time.h>

#define ROUNDS 20
#define LARGE (1 << 17)

static struct end one, other, sender, receiver;
static char *here, *there;
static struct ibv_mr *here_mr, *there_mr;

static struct ibv_wc next_completion(struct end *end)
{
    struct ibv_wc wc;
    int found;
    while ((found = ibv_poll_cq(end->cq, 1, &wc)) == 0)
        ;
    check(found < 0 || wc.status != IBV_WC_SUCCESS ? EIO : 0, "ibv_poll_cq");
    return wc;
}

static struct ibv_sge first_bytes(const struct end *end)
{
    return (struct ibv_sge){.addr = address_of(end), .length = 64, .lkey = end->mr->lkey};
}

/* `by`: sends, `to`: receives that memory was read, and overwrites it. */
static int read_and_told(struct end *by, struct end *to, int is_right)
{
    int status = 0;
    const struct ibv_sge all = {.addr = (uintptr_t)here, .length = LARGE, .lkey = here_mr->lkey};
    for (int round = 1; round <= ROUNDS; round++) {
        memset(there, round, LARGE);
        post_receive(to, first_bytes(to));
        post(&one, IBV_WR_RDMA_READ, all, (uintptr_t)there, there_mr->rkey);
        if (is_right)
            next_completion(&one);
        post(by, IBV_WR_SEND, first_bytes(by), 0, 0);
        next_completion(to);
        memset(there, 100 + round, LARGE);
        if (!is_right)
            next_completion(&one);
        next_completion(by);
        for (int i = 0; i < LARGE; i++)
            if (here[i] != round) {
                fprintf(stderr, "round %d: byte %d was read too late\n", round, i);
                status = 1;
                break;
            }
    }
    return status;
}

static int two(int is_right)
{
    return read_and_told(&sender, &receiver, is_right);
}

static int on_one(int is_right)
{
    return read_and_told(&one, &other, is_right);
}

static int written(int is_right)
{
    int status = 0;
    const struct ibv_sge all = {.addr = (uintptr_t)here, .length = LARGE, .lkey = here_mr->lkey};
    for (int round = 1; round <= ROUNDS; round++) {
        memset(here, round, LARGE);
        post_receive(&receiver, first_bytes(&receiver));
        post(&one, IBV_WR_RDMA_WRITE, all, (uintptr_t)there, there_mr->rkey);
        if (is_right)
            next_completion(&one);
        post(&sender, IBV_WR_SEND, first_bytes(&sender), 0, 0);
        next_completion(&receiver);
        if (((volatile char *)there)[LARGE - 1] != round) {
            fprintf(stderr, "round %d: the SEND has come, the WRITE has not\n", round);
            status = 1;
        }
        if (!is_right)
            next_completion(&one);
        next_completion(&sender);
    }
    return status;
}

static int answer(int is_right)
{
    int status = 0;
    for (int round = 1; round <= ROUNDS; round++) {
        post_receive(&one, first_bytes(&one));
        post_receive(&other, first_bytes(&other));
        post(&one, IBV_WR_SEND, first_bytes(&one), 0, 0);
        next_completion(&other);
        other.buffer[0] = (char)round;
        post(&other, IBV_WR_SEND, first_bytes(&other), 0, 0);
        const enum ibv_wc_opcode first = next_completion(&one).opcode;
        if (is_right && first != IBV_WC_RECV)
            next_completion(&one);
        if (((volatile char *)one.buffer)[0] != round) {
            fprintf(stderr, "round %d: no answer\n", round);
            status = 1;
        }
        if (!is_right || first == IBV_WC_RECV)
            next_completion(&one);
        next_completion(&other);
    }
    return status;
}

static double milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

/* Fails if a SEND comes within a few milliseconds, whatever a READ does. */
static int slow(int is_right)
{
    (void)is_right;
    const struct ibv_sge all = {.addr = (uintptr_t)here, .length = LARGE, .lkey = here_mr->lkey};
    post_receive(&receiver, first_bytes(&receiver));
    post(&one, IBV_WR_RDMA_READ, all, (uintptr_t)there, there_mr->rkey);
    post(&sender, IBV_WR_SEND, first_bytes(&sender), 0, 0);
    const double begin = milliseconds();
    next_completion(&receiver);
    const double took = milliseconds() - begin;
    next_completion(&one);
    next_completion(&sender);
    if (took < 2)
        fprintf(stderr, "the message came at once\n");
    return took < 2;
}

static int wrong(int is_right)
{
    two(1);
    return is_right == 0;
}

static void make_large(struct end *end, char **buffer, struct ibv_mr **mr)
{
    *buffer = need(mmap(NULL, LARGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), "mmap");
    *mr = end->extra = need(ibv_reg_mr(end->pd, *buffer, LARGE, ALL_RIGHTS), "ibv_reg_mr");
}

int main(int count, char **arguments)
{
    const struct {
        const char *name;
        int (*run)(int is_right);
        int is_right;
    } cases[] = {{"two", two, 0}, {"two-right", two, 1}, {"one", on_one, 0}, {"one-right", on_one, 1},
                 {"written", written, 0}, {"written-right", written, 1}, {"answer", answer, 0}, {"answer-right", answer, 1},
                 {"slow", slow, 0}, {"wrong", wrong, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (count == 2 && strcmp(arguments[1], cases[i].name) == 0) {
            open_device();
            make_end(&one);
            make_end(&other);
            /* A hold ends after half of it, which a busy machine may take for an answer. */
            if (cases[i].run == answer)
                one.attr.timeout = other.attr.timeout = 17;
            connect_ends(&one, &other);
            make_end(&sender);
            make_end(&receiver);
            connect_ends(&sender, &receiver);
            make_large(&one, &here, &here_mr);
            make_large(&other, &there, &there_mr);
            const int status = cases[i].run(cases[i].is_right);
            destroy_end(&sender);
            destroy_end(&receiver);
            destroy_pair(&one, &other);
            return status;
        }
    fprintf(stderr, "usage: order_cases CASE: see the top of its source\n");
    return 1;
}
