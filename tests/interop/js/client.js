// A client of kafkajs that a check runs as a process of its own, until its standard input ends.
//
//   client.js BROKERS write TOPIC          numbered values, idempotent; prints each that is acknowledged
//   client.js BROKERS read TOPIC GROUP     as a member of a group; prints each value that it was given
//   client.js BROKERS transact TOPIC       transactions of three values; prints each value, with how its transaction ended
//
// A line is one JSON array, of which the first part says what it is about.
//
// A send is of one partition only. With several, kafkajs 2.2.4 says that all were stored when it has left some out: if a
// partition moves to a broker that has already answered its part of the same send, nothing is sent for it (its
// sendMessages.js asks only brokers without an answer). It loses records of Apache Kafka in the same way.
'use strict'

const { CompressionTypes, Kafka, logLevel } = require('kafkajs')

const [brokers, verb, topic, group] = process.argv.slice(2)
const kafka = new Kafka({
  clientId: 'kafkajs',
  brokers: brokers.split(','),
  logLevel: logLevel.NOTHING,
  retry: { initialRetryTime: 100, maxRetryTime: 1000, retries: 100 },
})

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
const say = (...parts) => process.stdout.write(JSON.stringify(parts) + '\n')

const partitions = 6 // of the topics written to

// kafkajs gives up if the broker that it happens to ask first is down, which has nothing to do with the brokers' answers.
async function connected(client) {
  for (let tries = 1; ; tries++) {
    try {
      return await client.connect()
    } catch (e) {
      if (tries === 60) throw e
      await pause(500)
    }
  }
}

let stopped = false
const end = new Promise((resolve) => process.stdin.on('end', resolve)).then(() => { stopped = true })
process.stdin.resume()

const verbs = {
  async write() {
    const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 })
    await connected(producer)
    for (let sent = 0; !stopped;) {
      const values = Array.from({ length: 20 }, () => `kafkajs-${++sent}`)
      say('sent', values)
      try {
        const partition = (sent / values.length) % partitions
        const messages = values.map((value) => ({ key: value, value, partition }))
        await producer.send({ topic, acks: -1, compression: CompressionTypes.GZIP, messages })
        say('acknowledged', values)
      } catch (e) {
        say('refused', String(e))
      }
      await pause(20)
    }
    await producer.disconnect()
  },

  async read() {
    const consumer = kafka.consumer({ groupId: group, sessionTimeout: 10000, heartbeatInterval: 1000 })
    await connected(consumer)
    await consumer.subscribe({ topics: [topic], fromBeginning: true })
    consumer.on(consumer.events.CRASH, (e) => say('crash', String(e.payload.error)))
    consumer.on(consumer.events.GROUP_JOIN, () => say('joined'))
    await consumer.run({
      eachBatch: async ({ batch }) => say('values', batch.messages.map((m) => m.value.toString())),
    })
    await end
    await consumer.disconnect()
  },

  async transact() {
    const producer = kafka.producer({
      transactionalId: 'kafkajs', idempotent: true, maxInFlightRequests: 1, transactionTimeout: 30000,
    })
    await connected(producer)
    for (let round = 0, number = 0; !stopped; round++) {
      const values = [0, 1, 2].map((n) => `kafkajs-${round}-${n}`)
      const commits = round % 3 !== 2
      let transaction, ending = false
      try {
        transaction = await producer.transaction()
        for (const value of values) {
          await transaction.send({ topic, acks: -1, messages: [{ key: value, value, partition: number++ % partitions }] })
        }
        ending = true
        await (commits ? transaction.commit() : transaction.abort())
        say(commits ? 'committed' : 'aborted', values)
      } catch (e) {
        // An end that was asked for and not answered may have happened.
        say(ending && commits ? 'unknown' : 'aborted', values, String(e))
        if (!ending && transaction) await transaction.abort().catch((e) => say('no abort', String(e)))
      }
      await pause(20)
    }
    await producer.disconnect()
  },
}

verbs[verb]().then(() => process.exit(0), (e) => {
  say('failed', String(e && e.stack || e))
  process.exit(1)
})
