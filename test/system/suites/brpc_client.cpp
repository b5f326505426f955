/*
 * A client of brpc's example `rdma_performance`, which has its server: calls that are answered with what they have sent. Ends
 * with status 1 if brpc gives up a call, or if a byte is wrong.
 */
#include <brpc/channel.h>
#include <brpc/rdma/rdma_helper.h>
#include <cstdio>
#include <string>
#include "test.pb.h"

static const int CALLS = 20;

int main(int argc, char **argv)
{
	GFLAGS_NAMESPACE::ParseCommandLineFlags(&argc, &argv, true);
	brpc::rdma::GlobalRdmaInitializeOrDie();
	brpc::ChannelOptions options;
	options.socket_mode = brpc::SOCKET_MODE_RDMA;
	options.timeout_ms = 30000;
	options.max_retry = 5;
	brpc::Channel channel;
	if (argc < 2 || channel.Init(argv[1], &options) != 0) {
		fprintf(stderr, "no channel\n");
		return 1;
	}
	test::PerfTestService_Stub stub(&channel);
	for (int call = 0; call < CALLS; call++) {
		brpc::Controller controller;
		test::PerfTestRequest request;
		test::PerfTestResponse response;
		std::string sent(1 << call % 18, 'a' + call);
		request.set_echo_attachment(true);
		controller.request_attachment().append(sent);
		stub.Test(&controller, &request, &response, nullptr);
		if (controller.Failed()) {
			fprintf(stderr, "call %d failed: %s\n", call, controller.ErrorText().c_str());
			return 1;
		}
		if (controller.response_attachment().to_string() != sent) {
			fprintf(stderr, "call %d: wrong bytes\n", call);
			return 1;
		}
	}
	puts("done");
	return 0;
}
