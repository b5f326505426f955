/*
 * Connections by address and port: clients read the memory of a server. The first form runs in one process, the others
 * need a daemon (`userdma daemon`).
 *
 *   node dist/examples/connect-by-address.js [clients]
 *   node dist/examples/connect-by-address.js serve rdma://127.0.0.1:7471     (in one terminal)
 *   node dist/examples/connect-by-address.js read rdma://127.0.0.1:7471      (in another)
 */
import { connect, createNetwork, type Device, listen, open, remoteMemory, type Server } from 'userdma'

const text = 'every client may read this'

/** Accepts clients. The private data is the remote memory of the text. */
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
  const json = Buffer.from(connection.privateData).toString().replace(/\0+$/, '')
  const remote = remoteMemory(JSON.parse(json))
  const buffer = Buffer.alloc(remote.length)
  await connection.qp.read(connection.pd.register(buffer).slice(), remote)
  await connection.close()
  return buffer.toString()
}

const [command = '10', url = 'rdma://127.0.0.1:7471'] = process.argv.slice(2)
if (command === 'serve') await serve(await listen(url))
else if (command === 'read') console.log(await read(url))
else {
  const network = createNetwork()
  const serverDevice = await open({ network })
  const clientDevice = await open({ network })
  const server = await listen('rdma://0.0.0.0:0', { device: serverDevice })
  const serving = serve(server)
  const texts = await Promise.all(
    Array.from({ length: Number(command) }, () => read(`rdma://${serverDevice.address}:${server.port}`, clientDevice)),
  )
  console.log(`${texts.filter(received => received === text).length} of ${command} clients have read "${text}"`)
  await server.close()
  await serving
  await serverDevice.close()
  await clientDevice.close()
}
