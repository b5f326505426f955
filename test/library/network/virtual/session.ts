/*
 * A program in virtual time, with links that mark and lose packets: prints its counts, and hashes of its packets and of
 * its recording. Arguments: the seed, the fault rules, and a folder for its files.
 */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createNetwork } from '../../../../src/library/index.ts'
import { startEcho, talk } from './echo.ts'

const [, , seed, fault = '', folder = '.'] = process.argv
const [packets, session] = ['packets.pcapng', 'session.udr'].map(name => join(folder, name)) as [string, string]
const hashOf = (file: string): string => createHash('sha256').update(readFileSync(file)).digest('hex')

const links = {
  hosts: 2,
  switches: ['s'],
  links: [
    { between: ['h1', 's'], rate: '10gbit' },
    { between: ['s', 'h2'], rate: '1gbit', mark: '1kb-20kb-50%', loss: '1%' },
  ],
} as const
const network = createNetwork({ clock: 'virtual', seed: Number(seed), fault, record: session, links, dcqcn: true })
const stop = network.capture(packets)
const echo = await startEcho(network)
await talk(echo, 50)
network.setFaults('')
for (let i = 0; i < 20; i++) {
  await echo.messages.send(new Uint8Array(20_000))
  await echo.messages.receive()
}
network.setFaults(fault)
const near = echo.left.ip({ address: '10.9.0.1/24' })
const distant = echo.right.ip({ address: '10.9.0.2/24' })
const ping = await near.ping('10.9.0.2')
await network.sleep(60_000)
for (const one of [near, distant]) one.close()
const { marked, lost } = network.stats().links[2]!
const { rp_cnp_handled } = echo.left.counters().hw_counters
await echo.end()
stop()
console.log(network.now(), ping, hashOf(packets), marked, lost.chance, rp_cnp_handled)
process.on('exit', () => console.log(hashOf(session)))
