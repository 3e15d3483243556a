use super::{Migration, Missing, Result, tenants_of};
use stele_model::{Digest, TierId};
use stele_store::{Tier, keys};
pub(super) struct Proof {
    pub missing: Missing,
    pub tenants: u64,
    pub objects: u64,
    pub bytes: u64,
    pub hash: Digest,
}
impl Migration {
    pub(super) async fn unequal(&self, from: &Tier, to: &Tier) -> Result<Missing> {
        Ok(self.proof(from, to).await?.missing)
    }
    pub async fn compare(&self, _id: &TierId) -> Result<Missing> {
        Ok(Missing::default())
    }
    pub(super) async fn proof(&self, from: &Tier, to: &Tier) -> Result<Proof> {
        let mut p = Proof {
            missing: Missing::default(),
            tenants: 0,
            objects: 0,
            bytes: 0,
            hash: Digest::default(),
        };
        for tenant in tenants_of(from, to).await? {
            let (a, b) = (self.log_of(from, &tenant), self.log_of(to, &tenant));
            let (sa, sb) = (a.load().await?, b.load().await?);
            let Some(sa) = sa else { continue };
            for path in sa.files.keys() {
                p.objects += 1;
                let there = match &sb {
                    None => false,
                    Some(sb) => {
                        sb.version > sa.version
                            || b.store().get_opt(&keys::data_file(path)).await?.is_some()
                    }
                };
                if !there {
                    p.missing.note(|| format!("{tenant}: {path}"));
                }
            }
        }
        Ok(p)
    }
}
