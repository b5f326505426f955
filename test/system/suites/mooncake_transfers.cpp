/*
 * Both ends of Mooncake's transfer engine, which find each other by its `P2PHANDSHAKE`: the target lends memory and writes its
 * name to a file; the initiator writes patterns into that memory, reads them back and compares them. Ends with status 1 if the
 * engine gives up a transfer, or if a byte is wrong. The engine's time limits and retries are its defaults.
 */
#include <unistd.h>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include "transfer_engine.h"

using namespace mooncake;

static const int TRANSFERS = 12;
static const size_t SIZE = 1 << 18;

static bool transfer(TransferEngine &engine, TransferRequest::OpCode opcode, SegmentID target, uint64_t offset, void *source,
		     size_t length)
{
	TransferRequest request;
	request.opcode = opcode;
	request.source = source;
	request.target_id = target;
	request.target_offset = offset;
	request.length = length;
	BatchID batch = engine.allocateBatchID(1);
	TransferStatus status = {};
	if (!engine.submitTransfer(batch, {request}).ok())
		return false;
	do {
		usleep(500);
		if (!engine.getTransferStatus(batch, 0, status).ok())
			return false;
	} while (status.s == TransferStatusEnum::WAITING || status.s == TransferStatusEnum::PENDING);
	return engine.freeBatchID(batch).ok() && status.s == TransferStatusEnum::COMPLETED;
}

static int initiate(TransferEngine &engine, const char *path, char *memory)
{
	std::string name;
	std::ifstream(path) >> name;
	SegmentID target = engine.openSegment(name);
	auto description = engine.getMetadata()->getSegmentDescByID(target);
	if (!description || description->buffers.empty()) {
		fprintf(stderr, "no target '%s'\n", name.c_str());
		return 1;
	}
	uint64_t offset = (uint64_t)description->buffers[0].addr;
	for (int number = 0; number < TRANSFERS; number++) {
		size_t length = 1 << number * 18 / (TRANSFERS - 1);
		memset(memory, 'a' + number, length);
		if (!transfer(engine, TransferRequest::WRITE, target, offset, memory, length)) {
			fprintf(stderr, "write %d failed\n", number);
			return 1;
		}
		memset(memory, 0, length);
		if (!transfer(engine, TransferRequest::READ, target, offset, memory, length)) {
			fprintf(stderr, "read %d failed\n", number);
			return 1;
		}
		if (std::string(memory, length) != std::string(length, 'a' + number)) {
			fprintf(stderr, "transfer %d: wrong bytes\n", number);
			return 1;
		}
	}
	puts("done");
	return 0;
}

int main(int argc, char **argv)
{
	if (argc < 4) {
		fprintf(stderr, "usage: mooncake_transfers target|initiator FILE DEVICE...\n");
		return 2;
	}
	static char memory[SIZE] __attribute__((aligned(4096)));
	TransferEngine engine(false);
	std::string devices = "{\"cpu:0\": [[";
	for (int device = 3; device < argc; device++)
		devices += std::string(device > 3 ? ", \"" : "\"") + argv[device] + "\"";
	devices += "], []]}";
	void *arguments[] = {(void *)devices.c_str(), nullptr};
	if (engine.init("P2PHANDSHAKE", "127.0.0.1:12345") || !engine.installTransport("rdma", arguments) ||
	    engine.registerLocalMemory(memory, SIZE, "cpu:0")) {
		fprintf(stderr, "no engine\n");
		return 1;
	}
	if (!strcmp(argv[1], "initiator"))
		return initiate(engine, argv[2], memory);
	std::ofstream(argv[2]) << engine.getLocalIpAndPort() << std::endl;
	for (;;)
		pause();
}
