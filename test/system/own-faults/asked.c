/*
 * Two pairs of queue pairs that do what is asked on standard input, and answer each line with one: `write N` and `send
 * N` (a request on pair N, the status of its completion), `qp N` (number of the queue pair that pair N sends to),
 * `number N` (of that which sends), `register` (errno), `port` (state), `fault RULES`, `count ID`, `clear ID`, `wait ID
 * N MS` (userdma.h), `fork ID` (a child's count).
 */
#include <userdma.h>

#include "../../../docs/findings/pair.h"

static struct end one[2], other[2];

static const char *answer(char *line)
{
    static char text[700];
    const char *word = strtok(line, " ");
    char *rest = strtok(NULL, "");
    const int number = rest ? atoi(rest) : 0;
    text[0] = '\0';
    if (strcmp(word, "fault") == 0) {
        char why[512];
        const int id = userdma_fault_why(rest, why, sizeof why);
        snprintf(text, sizeof text, "%d %s", id, why);
    } else if (strcmp(word, "count") == 0)
        snprintf(text, sizeof text, "%ld", userdma_fault_count(number));
    else if (strcmp(word, "clear") == 0)
        snprintf(text, sizeof text, "%d", userdma_fault_clear(number));
    else if (strcmp(word, "wait") == 0) {
        int id = 0, times = 0, milliseconds = 0;
        sscanf(rest, "%d %d %d", &id, &times, &milliseconds);
        snprintf(text, sizeof text, "%d", userdma_fault_wait(id, (uint64_t)times, milliseconds));
    } else if (strcmp(word, "fork") == 0) {
        int pipes[2];
        check(pipe(pipes), "pipe");
        if (fork() == 0) {
            const int length = snprintf(text, sizeof text, "%ld %d", userdma_fault_count(number), userdma_fault_clear(number));
            _exit(write(pipes[1], text, (size_t)length) != length);
        }
        const ssize_t length = read(pipes[0], text, sizeof text - 1);
        check(length <= 0, "read");
        text[length] = '\0';
        wait(NULL);
    } else if (strcmp(word, "present") == 0)
        snprintf(text, sizeof text, "%d", userdma_present());
    else if (strcmp(word, "qp") == 0)
        snprintf(text, sizeof text, "%u", other[number].qp->qp_num);
    else if (strcmp(word, "number") == 0)
        snprintf(text, sizeof text, "%u", one[number].qp->qp_num);
    else if (strcmp(word, "register") == 0) {
        struct ibv_mr *mr = ibv_reg_mr(one[0].pd, one[0].buffer, SIZE, 0);
        snprintf(text, sizeof text, "%s", mr ? "ok" : strerror(errno));
        if (mr)
            ibv_dereg_mr(mr);
    } else if (strcmp(word, "port") == 0) {
        struct ibv_port_attr port;
        check(ibv_query_port(context, 1, &port), "ibv_query_port");
        snprintf(text, sizeof text, "%s", ibv_port_state_str(port.state));
    } else {
        struct ibv_wc wc = {0};
        if (strcmp(word, "send") == 0)
            post_receive(&other[number], all_of(&other[number]));
        post(&one[number], strcmp(word, "send") == 0 ? IBV_WR_SEND : IBV_WR_RDMA_WRITE, all_of(&one[number]),
             address_of(&other[number]), other[number].mr->rkey);
        while (ibv_poll_cq(one[number].cq, 1, &wc) == 0)
            ;
        drain(&other[number]);
        snprintf(text, sizeof text, "%s", ibv_wc_status_str(wc.status));
    }
    return text;
}

int main(int argc, char **argv)
{
    char line[8192];
    if (argc > 1) {
        printf("%d %d\n", userdma_present(), userdma_fault(argv[1]));
        return 0;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    make_pair(&one[0], &other[0]);
    make_end(&one[1]);
    make_end(&other[1]);
    connect_ends(&one[1], &other[1]);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = '\0';
        puts(answer(line));
    }
    destroy_end(&one[1]);
    destroy_end(&other[1]);
    return destroy_pair(&one[0], &other[0]);
}
