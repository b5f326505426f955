/*
 * Two queue pairs of one device in one process: RC, or SRD if the device is an EFA.
 *
 *   verbs_pair DEVICE GID write SIZE COUNT   prints GB/s of COUNT WRITEs, 64 outstanding
 *   verbs_pair DEVICE GID read SIZE COUNT    the same of READs
 *   verbs_pair DEVICE GID send SIZE COUNT    prints microseconds of a round trip of SENDs: mean, median, 90 %, 99 %, longest
 *
 * libefa has WRITEs since rdma-core 48.
 */
#include <infiniband/efadv.h>
#include <infiniband/verbs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { DEPTH = 64, QKEY = 0x1234, PSN = 0 };

static void require(int condition, const char *what)
{
	if (condition)
		return;
	perror(what);
	exit(1);
}

struct end {
	struct ibv_qp *qp;
	struct ibv_qp_ex *post;
	struct ibv_cq *cq;
	struct ibv_mr *mr;
	struct ibv_ah *ah; /* of the other end; NULL: connected */
	char *buffer;
};

enum operation { WRITE, READ, SEND };

static int is_srd;
static enum operation operation;
static struct ibv_context *context;
static struct ibv_pd *pd;
static union ibv_gid gid;
static int gid_index;
static uint16_t lid; /* of an InfiniBand port, else 0 */

static void make(struct end *end, size_t size)
{
	end->cq = ibv_create_cq(context, 4 * DEPTH, NULL, NULL, 0);
	require(end->cq != NULL, "ibv_create_cq");
	end->buffer = calloc(1, size);
	end->mr = ibv_reg_mr(pd, end->buffer, size, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ);
	require(end->mr != NULL, "ibv_reg_mr");
	struct ibv_qp_init_attr_ex attr = {
		.send_cq = end->cq,
		.recv_cq = end->cq,
		.cap = { DEPTH, DEPTH, 1, 1, 0 },
		.qp_type = is_srd ? IBV_QPT_DRIVER : IBV_QPT_RC,
		.sq_sig_all = 1,
		.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
		.pd = pd,
		.send_ops_flags = operation == WRITE ? IBV_QP_EX_WITH_RDMA_WRITE :
				  operation == READ ? IBV_QP_EX_WITH_RDMA_READ : IBV_QP_EX_WITH_SEND,
	};
	struct efadv_qp_init_attr efa = { .driver_qp_type = EFADV_QP_DRIVER_TYPE_SRD };
	end->qp = is_srd ? efadv_create_qp_ex(context, &attr, &efa, sizeof efa) : ibv_create_qp_ex(context, &attr);
	require(end->qp != NULL, "creating the queue pair");
	end->post = ibv_qp_to_qp_ex(end->qp);
}

static void connect_to(struct end *end, struct end *other)
{
	struct ibv_ah_attr ah = { .dlid = lid, .is_global = lid == 0, .port_num = 1,
		.grh = { .dgid = gid, .sgid_index = gid_index, .hop_limit = 64 } };
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = 1, .qkey = QKEY, .qp_access_flags = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ };
	int mask = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT;

	require(!ibv_modify_qp(end->qp, &attr, mask | (is_srd ? IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS)), "INIT");
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_4096, .dest_qp_num = other->qp->qp_num,
		.max_dest_rd_atomic = 16, .min_rnr_timer = 1, .ah_attr = ah };
	mask = IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
	require(!ibv_modify_qp(end->qp, &attr, IBV_QP_STATE | (is_srd ? 0 : mask)), "RTR");
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTS, .timeout = 14, .retry_cnt = 7, .rnr_retry = 7, .max_rd_atomic = 16 };
	mask = IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC;
	require(!ibv_modify_qp(end->qp, &attr, IBV_QP_STATE | IBV_QP_SQ_PSN | (is_srd ? 0 : mask)), "RTS");
	if (is_srd)
		require((end->ah = ibv_create_ah(pd, &ah)) != NULL, "ibv_create_ah");
}

static void post(struct end *end, struct end *other, size_t size)
{
	ibv_wr_start(end->post);
	end->post->wr_id = 1;
	end->post->wr_flags = IBV_SEND_SIGNALED;
	if (operation == WRITE)
		ibv_wr_rdma_write(end->post, other->mr->rkey, (uintptr_t)other->buffer);
	else if (operation == READ)
		ibv_wr_rdma_read(end->post, other->mr->rkey, (uintptr_t)other->buffer);
	else
		ibv_wr_send(end->post);
	if (end->ah != NULL)
		ibv_wr_set_ud_addr(end->post, end->ah, other->qp->qp_num, QKEY);
	ibv_wr_set_sge(end->post, end->mr->lkey, (uintptr_t)end->buffer, size);
	require(!ibv_wr_complete(end->post), "ibv_wr_complete");
}

static void receive(struct end *end, size_t size)
{
	struct ibv_sge sge = { (uintptr_t)end->buffer, size, end->mr->lkey };
	struct ibv_recv_wr wr = { .wr_id = 2, .sg_list = &sge, .num_sge = 1 }, *bad;

	require(!ibv_post_recv(end->qp, &wr, &bad), "ibv_post_recv");
}

/* Waits for `count` completions. */
static void reap(struct end *end, int count)
{
	struct ibv_wc wc[DEPTH];

	while (count > 0) {
		int found = ibv_poll_cq(end->cq, count < DEPTH ? count : DEPTH, wc);

		for (int i = 0; i < found; i++)
			if (wc[i].status != IBV_WC_SUCCESS) {
				fprintf(stderr, "completion: %s\n", ibv_wc_status_str(wc[i].status));
				exit(1);
			}
		count -= found;
	}
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	struct end ends[2] = { 0 };
	struct ibv_device **list = ibv_get_device_list(NULL);

	if (argc != 6) {
		fprintf(stderr, "usage: verbs_pair DEVICE GID write|read|send SIZE COUNT\n");
		return 2;
	}
	while (list != NULL && *list != NULL && strcmp(ibv_get_device_name(*list), argv[1]) != 0)
		list++;
	require(list != NULL && *list != NULL && (context = ibv_open_device(*list)) != NULL, argv[1]);
	gid_index = atoi(argv[2]);
	operation = argv[3][0] == 'w' ? WRITE : argv[3][0] == 'r' ? READ : SEND;
	size_t size = strtoul(argv[4], NULL, 10);
	long count = atol(argv[5]);
	struct efadv_device_attr efa;
	is_srd = efadv_query_device(context, &efa, sizeof efa) == 0;
	require((pd = ibv_alloc_pd(context)) != NULL, "ibv_alloc_pd");
	struct ibv_port_attr port;
	require(!ibv_query_port(context, 1, &port), "ibv_query_port");
	lid = port.lid;
	require(!ibv_query_gid(context, 1, gid_index, &gid), "ibv_query_gid");
	for (int i = 0; i < 2; i++)
		make(&ends[i], size);
	for (int i = 0; i < 2; i++)
		connect_to(&ends[i], &ends[1 - i]);
	double start = now();
	if (operation != SEND) {
		long posted = 0;

		for (; posted < count && posted < DEPTH; posted++)
			post(&ends[0], &ends[1], size);
		for (long done = 0; done < count; done++) {
			reap(&ends[0], 1);
			if (posted < count) {
				post(&ends[0], &ends[1], size);
				posted++;
			}
		}
		printf("%.4f\n", count * (double)size / (now() - start) / 1e9);
		return 0;
	}
	double *times = malloc(count * sizeof *times);

	require(times != NULL, "malloc");
	for (long i = 0; i < count; i++) {
		double begin = now();

		for (int side = 0; side < 2; side++) {
			receive(&ends[1 - side], size);
			post(&ends[side], &ends[1 - side], size);
			reap(&ends[side], 1);
			reap(&ends[1 - side], 1);
		}
		times[i] = (now() - begin) * 1e6;
	}
	printf("%.4f", (now() - start) / count * 1e6);
	qsort(times, count, sizeof *times, by_size);
	printf(" %.1f %.1f %.1f %.1f\n", times[count / 2], times[count * 9 / 10], times[count * 99 / 100], times[count - 1]);
	return 0;
}
