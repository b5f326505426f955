/*
 * Encodes protobuf messages (https://protobuf.dev/programming-guides/encoding/): varints, fixed 64-bit numbers,
 * doubles, texts and messages.
 */

const VARINT = 0
const FIXED64 = 1
const LENGTH = 2
const utf8 = new TextEncoder()

export class Message {
  #bytes = new Uint8Array(256)
  #view = new DataView(this.#bytes.buffer)
  #length = 0

  /** The encoded message. Valid until the next field is added. */
  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length)
  }

  /** An integer from 0 to 2^53 - 1, or a bigint of 64 bits. Throws a RangeError for another number. */
  varint(field: number, value: number | bigint): this {
    if (typeof value === 'number' && !(Number.isSafeInteger(value) && value >= 0))
      throw new RangeError(`${value} is no integer from 0 to 2^53 - 1`)
    this.#reserve(20)
    this.#putVarint(field * 8 + VARINT)
    if (typeof value === 'number') this.#putVarint(value)
    else this.#putBigVarint(BigInt.asUintN(64, value))
    return this
  }

  fixed64(field: number, value: bigint): this {
    this.#reserve(20)
    this.#putVarint(field * 8 + FIXED64)
    this.#view.setBigUint64(this.#length, BigInt.asUintN(64, value), true)
    this.#length += 8
    return this
  }

  double(field: number, value: number): this {
    this.#reserve(20)
    this.#putVarint(field * 8 + FIXED64)
    this.#view.setFloat64(this.#length, value, true)
    this.#length += 8
    return this
  }

  text(field: number, value: string): this {
    return this.#addBytes(field, utf8.encode(value))
  }

  message(field: number, value: Message): this {
    return this.#addBytes(field, value.bytes)
  }

  #addBytes(field: number, value: Uint8Array): this {
    this.#reserve(20 + value.length)
    this.#putVarint(field * 8 + LENGTH)
    this.#putVarint(value.length)
    this.#bytes.set(value, this.#length)
    this.#length += value.length
    return this
  }

  #reserve(bytes: number): void {
    if (this.#length + bytes <= this.#bytes.length) return
    const longer = new Uint8Array(2 * (this.#length + bytes))
    longer.set(this.bytes)
    this.#bytes = longer
    this.#view = new DataView(longer.buffer)
  }

  #putVarint(value: number): void {
    let rest = value
    for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) this.#bytes[this.#length++] = (rest % 0x80) | 0x80
    this.#bytes[this.#length++] = rest
  }

  #putBigVarint(value: bigint): void {
    let rest = value
    for (; rest >= 0x80n; rest >>= 7n) this.#bytes[this.#length++] = Number(rest & 0x7fn) | 0x80
    this.#bytes[this.#length++] = Number(rest)
  }
}
