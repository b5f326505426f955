/*
 * Two or more ranks: messages of several sizes around a ring, an all-reduce, and one-sided put, get and accumulate.
 * Ends with status 1 if a value is wrong.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int rank, count;

static void require(int condition, const char *what)
{
	if (condition)
		return;
	fprintf(stderr, "rank %d: %s: wrong value\n", rank, what);
	MPI_Abort(MPI_COMM_WORLD, 1);
}

static void point_to_point(void)
{
	int next = (rank + 1) % count, previous = (rank + count - 1) % count;

	for (int bytes = 1; bytes <= 1 << 20; bytes *= 32) {
		unsigned char *out = malloc(bytes), *in = malloc(bytes);

		memset(out, rank + 1, bytes);
		MPI_Sendrecv(out, bytes, MPI_BYTE, next, 7, in, bytes, MPI_BYTE, previous, 7, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
		require(in[0] == previous + 1 && in[bytes - 1] == previous + 1, "point to point");
		free(out);
		free(in);
	}
}

static void all_reduce(void)
{
	enum { ELEMENTS = 20000 };
	static int in[ELEMENTS], out[ELEMENTS];

	for (int i = 0; i < ELEMENTS; i++)
		in[i] = rank + i;
	MPI_Allreduce(in, out, ELEMENTS, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
	for (int i = 0; i < ELEMENTS; i++)
		require(out[i] == count * i + count * (count - 1) / 2, "all-reduce");
}

static void one_sided(void)
{
	enum { ELEMENTS = 4096 };
	int *window, got = -1, one = 1, value = 100 + rank, next = (rank + 1) % count;
	MPI_Win win;

	MPI_Win_allocate(ELEMENTS * sizeof(int), sizeof(int), MPI_INFO_NULL, MPI_COMM_WORLD, &window, &win);
	memset(window, 0, ELEMENTS * sizeof(int));
	MPI_Win_fence(0, win);
	MPI_Put(&value, 1, MPI_INT, next, 5, 1, MPI_INT, win);
	MPI_Win_fence(0, win);
	MPI_Get(&got, 1, MPI_INT, next, 5, 1, MPI_INT, win);
	MPI_Accumulate(&one, 1, MPI_INT, 0, 9, 1, MPI_INT, MPI_SUM, win);
	MPI_Win_fence(0, win);
	require(got == 100 + rank, "put and get");
	require(rank != 0 || window[9] == count, "accumulate");
	MPI_Win_free(&win);
}

int main(int argc, char **argv)
{
	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &count);
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "messages") == 0)
			point_to_point();
		if (strcmp(argv[i], "reduce") == 0)
			all_reduce();
		if (strcmp(argv[i], "one-sided") == 0)
			one_sided();
	}
	MPI_Finalize();
	return 0;
}
