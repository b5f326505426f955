/*
 * Third-party applications on librdmacm and libibverbs: those with a star in docs/reference/applications.md.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import { findTool } from '../../tools.ts'
import {
  freePort,
  isEmpty,
  lacking,
  type Running,
  start,
  startDaemon,
  suiteScope,
  type TestDaemon,
  temporaryFolder,
  untilListening,
} from '../programs.ts'

/** Placeholders: PORT is a free TCP port, ADDRESS is 127.0.0.1, FOLDER contains dat.conf. */
interface Application {
  readonly server: string
  /** They run one after the other. */
  readonly clients: readonly string[]
  /** What shows that the server listens: a listener of rdma_cm, one on TCP port PORT, or one on this TCP port. */
  readonly readyBy: 'rdma_cm' | 'tcp' | number
  /** Whether the server is stopped after the clients. */
  readonly isServerEndless?: true
  readonly env?: NodeJS.ProcessEnv
  /** Of the daemon's device; default rxe. */
  readonly driver?: 'rxe' | 'efa'
}

const fio = (verb: string): Application => {
  const job = 'fio --thread --name=job --ioengine=rdma --port=PORT --bs=64k --size=4m'
  return {
    // A receive for each of the 64 messages: fio's connections have no RNR retries.
    server: `${job} --rw=read --iodepth=64`,
    clients: [`${job} --hostname=ADDRESS --verb=${verb} --rw=write --iodepth=4`],
    readyBy: 'rdma_cm',
  }
}

const fabric = (provider: string, endpoint: string, env: NodeJS.ProcessEnv = {}): Application => ({
  server: `fi_pingpong -p ${provider} -e ${endpoint} -I 10 -B PORT`,
  clients: [`fi_pingpong -p ${provider} -e ${endpoint} -I 10 -P PORT ADDRESS`],
  readyBy: 'tcp',
  env,
})

const ucx = (test: string, transports: string, bytes = 4096): Application => ({
  server: 'ucx_perftest -p PORT',
  clients: [`ucx_perftest -p PORT -n 100 -w 10 -s ${bytes} -t ${test} ADDRESS`],
  readyBy: 'tcp',
  env: { UCX_TLS: transports, UCX_NET_DEVICES: 'rxe0:1' },
})

/**
 * Answers one HTTP request with the file `bytes`. It calls C's functions: Python's own sockets have SOCK_CLOEXEC, for
 * which librspreload silently uses TCP, and are accepted with accept4, which it does not intercept.
 */
const RSOCKETS_SERVER = `
import ctypes, os, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *args):
    result = getattr(libc, name)(*args)
    if result < 0:
        sys.exit(f"{name}: {os.strerror(ctypes.get_errno())}")
    return result
listener = call("socket", socket.AF_INET, socket.SOCK_STREAM, 0)
address = struct.pack("=H", socket.AF_INET) + struct.pack("!H", int(sys.argv[1])) + socket.inet_aton("127.0.0.1")
call("bind", listener, address + bytes(8), 16)
call("listen", listener, 5)
connection = call("accept", listener, None, None)
request = ctypes.create_string_buffer(65536)
call("recv", connection, request, 65536, 0)
body = open("bytes", "rb").read()
response = b"HTTP/1.0 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body
while response:
    response = response[call("send", connection, response, len(response), 0):]
call("recv", connection, request, 65536, 0)
call("close", connection)
`

/** By default libfabric's rxm provider requests queues for 256 peers, more than rxe allows. */
const FEW_PEERS = { FI_UNIVERSE_SIZE: '8' }

const applications: Readonly<Record<string, Application>> = {
  'fio writes': fio('write'),
  'fio reads': fio('read'),
  'fio sends': fio('send'),
  qperf: {
    server: 'qperf -lp PORT',
    clients: [
      ...['rc_bw', 'rc_lat', 'rc_bi_bw', 'rc_rdma_read_bw', 'rc_rdma_write_lat', 'rc_rdma_write_poll_lat'],
      ...['rc_compare_swap_mr', 'ver_rc_fetch_add'],
    ].map(test => `qperf -lp PORT -cm 1 -t 1 ADDRESS ${test}`),
    readyBy: 'tcp',
    isServerEndless: true,
  },
  'libfabric, connected': fabric('verbs', 'msg'),
  'libfabric, datagrams': fabric('verbs', 'dgram'),
  'libfabric, messages over connections': fabric('verbs;ofi_rxm', 'rdm', FEW_PEERS),
  'libfabric, messages over XRC': fabric('verbs;ofi_rxm', 'rdm', {
    ...FEW_PEERS,
    FI_VERBS_PREFER_XRC: '1',
    FI_OFI_RXM_USE_SRX: '1',
  }),
  'libfabric, messages over datagrams': fabric('verbs;ofi_rxd', 'rdm'),
  // without it, libfabric passes messages between processes of one machine by shared memory
  'libfabric, messages on EFA': { ...fabric('efa', 'rdm', { FI_EFA_ENABLE_SHM_TRANSFER: '0' }), driver: 'efa' },
  'libfabric, datagrams on EFA': { ...fabric('efa', 'dgram'), driver: 'efa' },
  'UCX, messages over RC': ucx('tag_bw', 'rc,ud,self'),
  'UCX, READ over RC': ucx('ucp_get', 'rc,ud,self'),
  'UCX, atomics over RC': ucx('ucp_cswap', 'rc,ud,self', 8),
  'UCX, messages over UD': ucx('tag_lat', 'ud,self'),
  uDAPL: {
    server: 'dtest -P lo -b 65536 -B 10',
    clients: ['dtest -P lo -b 65536 -B 10 -h ADDRESS'],
    readyBy: 15828, // dtest's port
    env: { DAT_OVERRIDE: 'FOLDER/dat.conf' },
  },
}

/** uDAPL's list of providers: `lo`, which is rdma_cm on the interface lo. */
const DAT_CONF = 'lo u2.0 nonthreadsafe default libdaplofa.so.2 dapl.2.0 "lo 0" ""\n'

describe('applications', () => {
  const suite = suiteScope()
  let rxe: TestDaemon
  /** libfabric finds EFA only if all devices are of EFA. */
  let efa: TestDaemon
  before(async () => {
    rxe = await startDaemon(suite)
    efa = await startDaemon(suite, { devices: ['efa0@127.0.0.1,driver=efa'] })
  })

  for (const [name, application] of Object.entries(applications)) {
    const { server: serverLine, clients, readyBy, isServerEndless, env, driver = 'rxe' } = application
    it(name, { skip: lacking(serverLine.split(' ')[0]!) }, async t => {
      const daemon = driver === 'efa' ? efa : rxe
      const folder = temporaryFolder(t)
      writeFileSync(join(folder, 'dat.conf'), DAT_CONF)
      const port = await freePort()
      const fillIn = (text: string): string =>
        text.replace('PORT', `${port}`).replace('ADDRESS', '127.0.0.1').replace('FOLDER', folder)
      const variables = Object.entries(env ?? {}).map(([key, value]) => [key, fillIn(value ?? '')])
      const options = { env: { ...daemon.env, ...Object.fromEntries(variables) }, cwd: folder }
      const startLine = (line: string): Running => {
        const [program, ...args] = line.split(' ').map(fillIn)
        return start(t, program!, args, options)
      }
      const { listeners } = (await daemon.stat()).connections
      const server = startLine(serverLine)
      if (readyBy !== 'rdma_cm') await untilListening(readyBy === 'tcp' ? port : readyBy, server.ended)
      else await Promise.race([daemon.settled(({ connections }) => connections.listeners > listeners), server.ended])
      for (const line of clients) {
        const { status, signal, stdout, stderr } = await startLine(line).ended
        const output = `${line}: status ${status}, signal ${signal}\n${stdout}${stderr}server:\n${server.output()}`
        assert.equal(status, 0, output)
        assert.doesNotMatch(stdout, /FAILED/, output)
      }
      if (isServerEndless) server.child.kill('SIGTERM')
      const { status, stdout, stderr } = await server.ended
      if (!isServerEndless) assert.equal(status, 0, `server: ${stdout}${stderr}`)
    })
  }

  const rsocketFolder = join('/usr/lib', process.arch === 'arm64' ? 'aarch64-linux-gnu' : 'x86_64-linux-gnu', 'rsocket')
  const preload = join(rsocketFolder, 'librspreload.so')

  it('socket programs with librspreload', { skip: lacking('python3', 'curl', preload) }, async t => {
    const folder = temporaryFolder(t)
    const bytes = Buffer.alloc(1_000_000, 'rsockets')
    writeFileSync(join(folder, 'bytes'), bytes)
    const port = await freePort()
    const options = { env: { ...rxe.env, LD_PRELOAD: `${rxe.env.LD_PRELOAD}:${preload}` }, cwd: folder }
    const { listeners } = (await rxe.stat()).connections
    // Must be the interpreter: the shell of a python3 wrapper script would create the first sockets.
    const server = start(t, findTool('python3')!, ['-c', RSOCKETS_SERVER, `${port}`], options)
    await Promise.race([rxe.settled(({ connections }) => connections.listeners > listeners), server.ended])
    const url = `http://127.0.0.1:${port}/bytes`
    const { status, stderr } = await start(t, 'curl', ['-s', '-S', '-o', 'copy', url], options).ended
    assert.equal(status, 0, `${stderr}server:\n${server.output()}`)
    assert.ok(readFileSync(join(folder, 'copy')).equals(bytes))
    // curl falls back to TCP if it cannot connect over RDMA. The server listens on an rsocket only.
    assert.equal((await server.ended).status, 0)
  })

  const needsRoot = process.getuid?.() === 0 ? false : 'tgtd needs root'
  it('tgt and libiscsi over iSER', { skip: needsRoot || lacking('tgtd', 'tgtadm', 'iscsi-test-cu') }, async t => {
    const folder = temporaryFolder(t)
    const disk = join(folder, 'disk')
    writeFileSync(disk, Buffer.alloc(16 << 20))
    const port = await freePort()
    // tgtd listens for iSER on port 3260, and for its administration on a local socket of this number.
    const control = `${port % 32_768}`
    const options = { env: rxe.env, cwd: folder }
    const { listeners } = (await rxe.stat()).connections
    const server = start(t, 'tgtd', ['-f', '-C', control, '--iscsi', `portal=127.0.0.1:${port}`], options)
    await Promise.race([rxe.settled(({ connections }) => connections.listeners > listeners), server.ended])
    const runTool = async (line: string): Promise<string> => {
      const [program, ...args] = line.split(' ')
      const { status, stdout, stderr } = await start(t, program!, args, options).ended
      assert.equal(status, 0, `${line}: status ${status}\n${stdout}${stderr}server:\n${server.output()}`)
      return stdout
    }
    const administer = (rest: string): Promise<string> => runTool(`tgtadm -C ${control} --lld iser --mode ${rest}`)
    const [target, initiator] = ['iqn.2026-01.test:disk', 'iqn.2026-01.test:initiator']
    await administer(`target --op new --tid 1 --targetname ${target}`)
    await administer(`logicalunit --op new --tid 1 --lun 1 -b ${disk}`)
    // tgt 1.0.85 answers "target not found" over iSER unless the address and the name are bound.
    await administer('target --op bind --tid 1 -I ALL')
    await administer(`target --op bind --tid 1 -Q ${initiator}`)
    const lun = `iser://127.0.0.1:3260/${target}/1`
    for (const name of ['Read10.Simple', 'Read10.BeyondEol', 'Write10.Simple', 'CompareAndWrite.Simple'])
      assert.doesNotMatch(await runTool(`iscsi-test-cu -d -i ${initiator} -t SCSI.${name} ${lun}`), /FAILED/)
    server.child.kill('SIGKILL')
    await server.ended
  })

  it('leave nothing behind', async () => {
    await rxe.settled(isEmpty)
  })
})
