/*
 * A server that grants READ access to its memory, and clients that read it: connections by address and port, in one
 * process, or between two (with a daemon: `userdma daemon`).
 *
 *   node dist/examples/connect-by-address.js [clients]
 *   node dist/examples/connect-by-address.js serve rdma://127.0.0.1:7471     (in one terminal)
 *   node dist/examples/connect-by-address.js read rdma://127.0.0.1:7471      (in another)
 */
import { connect, createNetwork, type Device, listen, open, remoteMemory, type Server } from 'userdma'

const text = 'whoever connects may read this'

/** Accepts clients, and sends each the address of the text as private data. */
const serve = async (server: Server): Promise<void> => {
  const pd = server.device.pd()
  const region = pd.register(Buffer.from(text), { remoteRead: true })
  const privateData = Buffer.from(JSON.stringify(region.remote()))
  for await (const request of server) {
    const connection = await request.accept({ pd, privateData })
    void connection.closed.then(() => connection.close())
  }
}

/** Connects, reads the text from the server's memory, and disconnects. */
const read = async (url: string, device?: Device): Promise<string> => {
  const connection = await connect(url, device && { device })
  // The private data is padded with zeros.
  const text = Buffer.from(connection.privateData).toString().replace(/\0+$/, '')
  const from = remoteMemory(JSON.parse(text))
  const into = Buffer.alloc(from.length)
  await connection.qp.read(connection.pd.register(into).slice(), from)
  await connection.close()
  return into.toString()
}

const [what = '10', url = 'rdma://127.0.0.1:7471'] = process.argv.slice(2)
if (what === 'serve') await serve(await listen(url))
else if (what === 'read') console.log(await read(url))
else {
  const network = createNetwork()
  const near = await open({ network })
  const far = await open({ network })
  const server = await listen('rdma://0.0.0.0:0', { device: near })
  const serving = serve(server)
  const texts = await Promise.all(
    Array.from({ length: Number(what) }, () => read(`rdma://${near.address}:${server.port}`, far)),
  )
  console.log(`${texts.filter(one => one === text).length} of ${what} clients have read "${text}"`)
  await server.close()
  await serving
  await near.close()
  await far.close()
}
