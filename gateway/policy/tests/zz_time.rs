mod support;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;
use durward_policy::*;
struct Mirror(HashMap<u128, u8>);
impl Revocations for Mirror {
    fn standing(&self, t: &VerifiedToken, _: durward_contract::UnixSeconds) -> Standing {
        for (c, d) in t.digests().iter() { if self.0.contains_key(&d.0) { return Standing::Revoked(c) } }
        Standing::Live
    }
}
struct One(Arc<VerifiedToken>);
impl Proofs for One { fn prove(&self, _: &Policy, _: &str) -> Result<Arc<VerifiedToken>, Rejection> { Ok(Arc::clone(&self.0)) } }
#[test]
fn time() {
    let mut routes = String::new();
    for i in 0..97 { routes += &format!("  - {{ path: /svc{i}/**, upstream: api }}\n"); }
    routes += "  - { path: \"/images/{owner}/**\", upstream: api, methods: [GET], require: { sub: \"{owner}\", roles: user } }\n";
    let p = support::policy_of_routes(&routes);
    let keys = support::FixedKeys::usual(&p);
    let tok = support::good_token(&[]);
    let one = One(Arc::new(prove(&p, &tok, &keys).unwrap()));
    println!("memory {}", one.0.memory_bytes());
    let mirror = Mirror((0..1_000_000u128).map(|i| (i.wrapping_mul(0x9E3779B97F4A7C15F39CC0605CEDC835), 0)).collect());
    let r = support::Request::get("/images/user-1/a.png").bearer(&tok).header("user-agent", "x").header("accept", "*/*").header("x-user-id", "spoof").header("cookie", "a=b").header("accept-language", "en").header("accept-encoding","gzip");
    let n = 2_000_000u32;
    let facts = r.facts();
    let t = Instant::now();
    for _ in 0..n { match decide(&p, std::hint::black_box(&facts), &one, &mirror, support::NOW, &mut NoTrace) { Decision::Permit(x) => { std::hint::black_box(x); }, Decision::Refuse(x) => panic!("{x:?}") } }
    println!("decide {:?}", t.elapsed() / n);
    let t = Instant::now();
    for _ in 0..n { std::hint::black_box(r.facts()); }
    println!("judge {:?}", t.elapsed() / n);
    let Decision::Permit(permit) = decide(&p, &facts, &one, &mirror, support::NOW, &mut NoTrace) else { panic!() };
    let t = Instant::now();
    for _ in 0..n/4 { let mut h = r.headers.clone(); permit.apply_to(&mut h); std::hint::black_box(&h); }
    let a = t.elapsed() / (n/4);
    let t = Instant::now();
    for _ in 0..n/4 { std::hint::black_box(r.headers.clone()); }
    println!("apply {:?} (of which clone {:?})", a, t.elapsed() / (n/4));
    let t = Instant::now();
    for _ in 0..2000 { std::hint::black_box(prove(&p, &tok, &keys).unwrap()); }
    println!("prove es256 {:?}", t.elapsed() / 2000);
}
